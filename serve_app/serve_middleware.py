"""What wraps Ray Serve's own request handling in every HTTP process.

Serve reads headers of its own from requests: a timeout that answers in plain text, a session,
a model id. Clients of this service have no business with them, so they are removed. One is
added: it tells Serve not to watch for the client's disconnection, which costs a task per
request, and a write that was handed to its shard is finished in any case.

Installed by ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.serve_middleware:middlewares``.
"""

from typing import Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

_SERVES_OWN: Final = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"x-session-id",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
    }
)
_DO_NOT_WATCH: Final = (b"x-request-disconnect-disabled", b"?1")


class ServeHeaders:
    """Removes Serve's control headers from requests, and sets the one that we want."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [pair for pair in scope["headers"] if pair[0] not in _SERVES_OWN]
            headers.append(_DO_NOT_WATCH)
            scope["headers"] = headers
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """As Serve's callback wants them."""
    return [Middleware(ServeHeaders)]
