"""Middleware in front of Ray Serve's request handling: API requests bypass it.

Ray Serve places, monitors, replaces and upgrades the replicas and configures HAProxy. It also does
accounting around every request (tasks, contexts, metrics, an id), which costs more CPU than this
service needs for a command (measured: 250 → 155 µs per request). We count requests ourselves, so
API requests bypass Serve. Draining does not depend on its accounting: a stopping replica closes its
listener and waits for its HTTP server to finish the requests in flight.

Other requests (docs, unknown routes, Serve's health check) go on to Serve, without the headers that
control it: a timeout that responds in plain text, a session, a model id.

Registered by ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``, which names `middlewares`.
"""

from typing import Final

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.asgi.router import FastPathApplication
from serve_app.http.problems import ProblemError, problem_response
from serve_app.http.requests import request_id_of

_SERVE_CONTROL_HEADERS: Final = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"x-session-id",
        b"x-request-id",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
    }
)

_applications: list[FastPathApplication] = []
_is_closed: bool = False


def register(application: FastPathApplication) -> None:
    """Serve ``application``'s routes in this process."""
    _applications[:] = [application]


def disable() -> None:
    """Respond 404 to every request of this process: it has no routes, but Serve opens a port."""
    global _is_closed  # of this process, as the port is
    _is_closed = True


class FastPathMiddleware:
    """Wraps Serve's request handling, in every Serve process with an HTTP server."""

    def __init__(self, serve: ASGIApp) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if _is_closed:
                problem = ProblemError("not_found", "This process serves no routes.")
                response = problem_response(problem, request_id_of(Request(scope)))
                await response(scope, receive, send)
                return
            for application in _applications:
                if await application.handle(scope, receive, send):
                    return
            headers = [pair for pair in scope["headers"] if pair[0] not in _SERVE_CONTROL_HEADERS]
            # Serve echoes the header as sent; ours could then report another request id.
            request_id = request_id_of(Request(scope)).encode()
            scope["headers"] = [*headers, (b"x-request-id", request_id)]
        await self._serve(scope, receive, send)


def middlewares() -> list[Middleware]:
    """The callback that Serve calls."""
    return [Middleware(FastPathMiddleware)]
