"""The first thing a request meets in an ingress replica: API routes go straight to their endpoints.

Ray Serve places, watches, replaces and upgrades the replicas and tells HAProxy where they are; what
it also does is accounting around every request (tasks, contexts, metrics, an id), which costs
more CPU than all of this service does for a command (measured: 250 → 155 µs per request). Those
figures we keep ourselves, so API requests are answered in front of it. Draining does not depend
on them: a replica that leaves closes its listener and waits for its HTTP server to finish what is
in flight.

Everything else (docs, unknown routes, Serve's own health check) goes on to Serve, less the headers
that would steer it: a timeout that answers in plain text, a session, a model id.

Installed by ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``, which names `middlewares`.
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
    """Serve ``application``'s routes from now on in this process."""
    _applications[:] = [application]


def disable() -> None:
    """Answer 404 to everything in this process: it has no routes, yet Serve gives it a port."""
    global _is_closed  # of this process, as the port is
    _is_closed = True


class FastPathMiddleware:
    """Around Serve's request handling, in every process of it that speaks HTTP."""

    def __init__(self, serve: ASGIApp) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if _is_closed:
                problem = ProblemError("not_found", "There are no routes here.")
                response = problem_response(problem, request_id_of(Request(scope)))
                await response(scope, receive, send)
                return
            for application in _applications:
                if await application.handle(scope, receive, send):
                    return
            headers = [pair for pair in scope["headers"] if pair[0] not in _SERVE_CONTROL_HEADERS]
            # Serve echoes whatever was sent, and ours would then name the request otherwise.
            request_id = request_id_of(Request(scope)).encode()
            scope["headers"] = [*headers, (b"x-request-id", request_id)]
        await self._serve(scope, receive, send)


def middlewares() -> list[Middleware]:
    """As Serve's callback wants them."""
    return [Middleware(FastPathMiddleware)]
