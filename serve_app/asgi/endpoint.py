"""Endpoints as ASGI applications: from request to response, with errors as problem documents.

`RawRoute` registers such an endpoint with FastAPI, so that the OpenAPI document includes it;
requests reach it through `serve_app.asgi.router`.
"""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final

import structlog
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime import tracing
from runtime.postgres.reads import ReadUnavailable
from serve_app.asgi import request_metrics
from serve_app.asgi.access_log import AccessLog, log_context
from serve_app.asgi.failure_log import FailureLog
from serve_app.asgi.tracing import run_in_span
from serve_app.auth.api_key import KeyScope
from serve_app.dependencies import dependencies_of
from serve_app.http import request_rules
from serve_app.http.problems import ProblemError, problem_response
from serve_app.http.request_rules import Allowed, check_request
from serve_app.http.requests import request_id_of

_log = structlog.get_logger(__name__)

_failures: Final = FailureLog()

Endpoint = Callable[[Request], Awaitable[Response]]


def as_asgi(
    endpoint: Endpoint, needs: KeyScope | None, allowed: Allowed = request_rules.NOTHING
) -> ASGIApp:
    """``endpoint`` as an ASGI application that returns every error as a problem document.

    ``needs``: the required scope; None: no API key needed. Every request passes through here,
    whether from HAProxy, a replica's own port or Serve's fallback proxy. HEAD is GET without the
    body.
    """

    name: str = endpoint.__name__
    request_metrics.preregister(name)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        if scope["method"] == "HEAD":
            send = _without_body(send)
        request = Request(scope, receive, send)
        try:
            if (
                needs is not None
                and (authenticator := dependencies_of(request).authenticator) is not None
            ):
                await authenticator.authenticate(scope, needs)
            check_request(scope, allowed)
            if tracing.enabled:
                response = await run_in_span(endpoint, request, name)
            else:
                response = await endpoint(request)
        except Exception as error:  # noqa: BLE001 - any error becomes a problem document
            problem = problem_from_exception(error, request)
            _failures.record(request, name, problem)
            response = problem_response(problem, request_id_of(request))
        response.raw_headers.append((b"x-request-id", request_id_of(request).encode()))
        await response(scope, receive, send)
        request_metrics.requests[name, response.status_code] += 1
        took_s = perf_counter() - started
        request_metrics.seconds[name].observe(took_s)
        if AccessLog.enabled:
            AccessLog.record(request, name, response.status_code, took_s)

    return serve


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head


def problem_from_exception(error: Exception, request: Request) -> ProblemError:
    """The problem for ``error``; an unhandled exception is logged with its traceback."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, ReadUnavailable):
        _log.warning("read failed", cause=str(error), **log_context(request))
        return ProblemError(
            "unavailable",
            "The database does not respond.",
            headers={"Retry-After": "1"},
            applied="no",
        )
    _log.error("unhandled exception", path=request.url.path, exc_info=error, **log_context(request))
    return ProblemError("internal_error", "The service failed with an internal error.")


class RawRoute(APIRoute):
    """An `APIRoute` whose endpoint takes the request and returns the response."""

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        needs: KeyScope | None,
        allowed: Allowed,
        **options: Any,
    ) -> None:
        super().__init__(path, endpoint, response_model=None, **options)
        self.app = as_asgi(endpoint, needs, allowed)
