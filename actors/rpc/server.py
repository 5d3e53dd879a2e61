"""A shard's RPC port: ingress replicas send their commands to it.

A call through Ray costs 1.5 to 2 ms of CPU on both sides together, more than all other work for a
single command; over a TCP connection it costs a tenth of that. Ray still starts, places, monitors
and replaces the shard, and returns its address and secret
(`specification/decisions/0021-commands-travel-over-a-connection.md`).

Each process generates a new secret. Unauthenticated connections are closed without a response;
their payload is never decoded. An authenticated client that speaks another protocol version gets
ours, and nothing else.
"""

import asyncio
import hmac
import secrets
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, cast

import msgspec
import structlog

from actors.rpc.framing import (
    FRAME_BYTES_MAX,
    GREETING_BYTES,
    FrameDecoder,
    FrameError,
    FrameKind,
    encode_frame,
    greeting,
    parse_greeting,
)
from actors.rpc.keepalive import enable_keepalive
from actors.rpc.messages import VERSION

_log = structlog.get_logger(__name__)

_SECRET_BYTES: Final = 32
_AUTH_TIMEOUT_S: Final = 5.0

Handler = Callable[[bytes], Awaitable[bytes]]
Health = Callable[[], str | None]


class RpcEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a shard listens. ``secret`` authenticates clients; it must not be logged."""

    host: str
    port: int
    secret: str

    def __repr__(self) -> str:
        return f"RpcEndpoint({self.host}:{self.port})"


class RpcServer:
    """Answers calls with ``handler``, each as soon as it is done, in any order, and pings with
    the result of ``health``."""

    def __init__(self, handler: Handler, health: Health, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._health = health
        self._tls = tls
        self._secret = secrets.token_hex(_SECRET_BYTES)
        self._connections: set[_ServerConnection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str) -> RpcEndpoint:
        """Listen on a free port of ``host``, and on no other interface."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._accept,
            host,
            0,
            ssl=self._tls,
            ssl_handshake_timeout=_AUTH_TIMEOUT_S if self._tls else None,
        )
        port = self._server.sockets[0].getsockname()[1]
        return RpcEndpoint(host=host, port=port, secret=self._secret)

    async def close(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()

    def _accept(self) -> "_ServerConnection":
        return _ServerConnection(
            self._handler, self._health, self._secret.encode(), self._connections
        )


class _ServerConnection(asyncio.Protocol):
    """One client's connection."""

    def __init__(
        self, handler: Handler, health: Health, secret: bytes, connections: "set[_ServerConnection]"
    ) -> None:
        self._handler = handler
        self._health = health
        self._secret = secret
        self._connections = connections
        self._reader = FrameDecoder(bytes_max=GREETING_BYTES + len(secret))
        self._authenticated = False
        self._calls: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no `asyncio.Transport`, but do all that one does.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        enable_keepalive(transport.get_extra_info("socket"))
        self._auth_timer = asyncio.get_running_loop().call_later(_AUTH_TIMEOUT_S, self.abort)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, call, payload in self._reader.feed(data):
                self._handle_frame(kind, call, payload)
        except FrameError as error:
            _log.warning("connection refused", cause=str(error))
            self.abort()

    def connection_lost(self, _cause: Exception | None) -> None:
        # Accepted commands are still decided: the client repeats them over its next connection.
        self._auth_timer.cancel()
        self._connections.discard(self)

    def abort(self) -> None:
        self._transport.abort()

    def _handle_frame(self, kind: int, call: int, payload: bytes) -> None:
        if not self._authenticated:
            self._authenticate(kind, payload)
        elif kind == FrameKind.CALL:
            task = asyncio.create_task(self._answer(call, payload))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        elif kind == FrameKind.PING:
            self._write(encode_frame(FrameKind.PONG, call, (self._health() or "").encode()))
        else:
            # Only this frame fails: the connection's other calls continue.
            self._write(encode_frame(FrameKind.ERROR, call, b"a frame of kind %d" % kind))

    def _authenticate(self, kind: int, payload: bytes) -> None:
        version, secret = parse_greeting(payload)
        if kind != FrameKind.AUTH or not hmac.compare_digest(secret, self._secret):
            raise FrameError("no secret, or a wrong one")
        self._write(encode_frame(FrameKind.AUTH, 0, greeting(VERSION)))
        if version != VERSION:
            _log.warning("connection refused", cause=f"the client speaks version {version}")
            self._transport.close()
            return
        self._authenticated = True
        self._reader.bytes_max = FRAME_BYTES_MAX
        self._auth_timer.cancel()

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def _answer(self, call: int, payload: bytes) -> None:
        try:
            answer, kind = await self._handler(payload), FrameKind.REPLY
        except Exception as error:  # noqa: BLE001 - every error is returned to the caller
            _log.error("call failed", exc_info=error)
            answer, kind = repr(error).encode(), FrameKind.ERROR
        self._write(encode_frame(kind, call, answer))
