"""Message framing on a byte stream: length, call number, kind, payload."""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final

_HEADER: Final = Struct(">IIB")

FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
"""Calls are bounded by the number of commands and the size of a body. This limit bounds what a
broken or hostile peer can make a process allocate."""


class FrameKind(IntEnum):
    """Type of a frame."""

    AUTH = 0
    """A `greeting`; answered with the server's own, without a secret."""
    CALL = 1
    REPLY = 2
    ERROR = 3
    """An exception in the server: the payload is its text."""
    PING = 4
    """Sent by the client, answered immediately with a PONG: the server's event loop runs."""
    PONG = 5
    """The payload says why the server can't write now; empty if it can."""


class FrameError(Exception):
    """The peer does not speak this protocol."""


def encode_frame(kind: FrameKind, call: int, payload: bytes) -> bytes:
    """``payload`` as a frame. ``call`` counts a connection's calls, modulo 2^32."""
    return _HEADER.pack(len(payload), call, kind) + payload


_VERSION: Final = Struct(">H")

GREETING_BYTES: Final = _VERSION.size
"""Length of a greeting without a secret."""


def greeting(version: int, secret: bytes = b"") -> bytes:
    """Payload of an AUTH frame: the version of `actors.rpc.messages`, then the secret."""
    return _VERSION.pack(version) + secret


def parse_greeting(payload: bytes) -> tuple[int, bytes]:
    """Version and secret.

    Raises:
        FrameError: the payload is too short.
    """
    if len(payload) < GREETING_BYTES:
        raise FrameError("no greeting")
    return _VERSION.unpack_from(payload)[0], payload[GREETING_BYTES:]


class FrameDecoder:
    """Splits incoming data into frames."""

    def __init__(self, *, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The frames that ``data`` completes: kind, call, payload.

        Raises:
            FrameError: the next frame is larger than ``bytes_max``.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            length, call, kind = _HEADER.unpack_from(self._buffer)
            if length > self.bytes_max:
                raise FrameError(f"a frame of {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield kind, call, payload
