"""Routes that FastAPI documents and Starlette serves.

FastAPI's per-request machinery (dependency solving, response models, exit stacks) costs more
than everything else that an ingress does for a command. These routes stand in the
OpenAPI document like any other, but their endpoint gets the bare request and returns the
response itself.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.problems import Problem, problem_response
from serve_app.requests import request_id_of

_log = structlog.get_logger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


def direct(endpoint: Endpoint) -> ASGIApp:
    """``endpoint`` as an ASGI application that answers every problem as a problem."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await endpoint(request)
        except Problem as problem:
            response = problem_response(problem, request_id_of(request))
        await response(scope, receive, send)

    return serve


class DirectRoute(APIRoute):
    """An `APIRoute` whose endpoint takes the request and returns the response."""

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, response_model=None, **options)
        self.app = direct(endpoint)
