"""Starlette requests with a body of any number of chunks."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import Message


def make_request(
    *,
    headers: dict[str, str] | None = None,
    path: dict[str, str] | None = None,
    chunks: Iterable[bytes] = (),
    disconnects: bool = False,
) -> Request:
    """A POST. ``disconnects``: the client goes away after the last chunk."""
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    if disconnects:
        messages.append({"type": "http.disconnect"})
    else:
        messages.append({"type": "http.request", "body": b"", "more_body": False})
    coming = iter(messages)

    async def receive() -> Message:
        return next(coming)

    raw = [
        (name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": raw,
        "path_params": path or {},
    }
    return Request(scope, receive)
