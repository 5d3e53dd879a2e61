"""A minimal keep-alive HTTP/1.1 client connection, to count responses cheaply."""

import asyncio
from typing import Final, Protocol

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"
_CLOSES: Final = b"\r\nconnection: close"


class Owner(Protocol):
    """The user of the connection."""

    def answered(self, connection: "Connection", status: int, body: bytes) -> None:
        """A response arrived; the connection is free again, or ``is_closing``."""

    def lost(self, connection: "Connection", *, in_flight: bool) -> None:
        """The connection ended, maybe with a request in flight."""


class Connection(asyncio.Protocol):
    """Sends one request at a time. ``intended`` is the owner's: when the request was due.

    ``is_closing``: the server takes no further request on this connection. `lost` follows.
    """

    __slots__ = (
        "_buffer",
        "_expected",
        "_owner",
        "_transport",
        "_waiting",
        "intended",
        "is_closing",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._expected = 0
        self._waiting = False
        self.intended = 0.0
        self.is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def send(self, request: bytes, intended: float) -> None:
        """Send ``request``; its response goes to the owner."""
        assert self._transport is not None
        assert not self._waiting
        self.intended = intended
        self._waiting = True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if len(buffer) < self._expected:
            self._buffer = buffer
            return
        end = buffer.find(_HEAD_END)
        if end < 0:
            self._buffer = buffer
            return
        head = buffer[:end].lower()
        length = _content_length(head)
        whole = end + len(_HEAD_END) + length
        if len(buffer) < whole:
            self._buffer, self._expected = buffer, whole
            return
        self._buffer, self._expected = b"", 0
        self._waiting = False
        if _CLOSES in head:
            self.is_closing = True
            self.close()
        self._owner.answered(self, int(buffer[9:12]), buffer[end + len(_HEAD_END) : whole])

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._owner.lost(self, in_flight=self._waiting)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()


def _content_length(lowered: bytes) -> int:
    start = lowered.find(_LENGTH)
    if start < 0:
        # 204 and 304 have no body; the service sends no chunked responses.
        assert b"\r\ntransfer-encoding:" not in lowered, "chunked responses aren't supported"
        return 0
    start += len(_LENGTH)
    end = lowered.find(b"\r", start)
    return int(lowered[start : end if end > 0 else None])
