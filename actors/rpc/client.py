"""An ingress replica's connection to a shard's port (`actors.rpc.server`).

The shard is pinged permanently, with or without calls. After some unanswered pings the connection
is closed: its calls fail as delivered, and the dispatcher delivers them to the next shard. A missed
ping is counted when the next one is sent, so a replica that was itself blocked first reads what has
arrived. The shard answers pings between any two steps, however many commands are queued.
"""

import asyncio
import ssl
from typing import Final, cast

from actors.rpc.framing import (
    FRAME_BYTES_MAX,
    FrameDecoder,
    FrameError,
    FrameKind,
    encode_frame,
    greeting,
    parse_greeting,
)
from actors.rpc.keepalive import Heartbeat, enable_keepalive
from actors.rpc.messages import VERSION
from actors.rpc.server import RpcEndpoint
from actors.rpc.transport import ShardUnreachable

_CONNECT_TIMEOUT_S: Final = 2.0


class RemoteCallError(Exception):
    """The shard raised an exception instead of answering."""


async def connect(
    address: RpcEndpoint, heartbeat: Heartbeat, tls: ssl.SSLContext | None = None
) -> "RpcClient":
    """Connect to a shard.

    Raises:
        ShardUnreachable: no shard there accepts this secret and our protocol version; nothing was
            delivered.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            transport, channel = await loop.create_connection(
                lambda: RpcClient(heartbeat), address.host, address.port, ssl=tls
            )
            try:
                await channel.authenticate(address.secret)
            except BaseException:
                transport.abort()
                raise
    except (OSError, TimeoutError) as error:
        raise ShardUnreachable(f"no connection: {error!r}", delivered=False) from error
    return channel


class RpcClient(asyncio.Protocol):
    """Calls over one connection; any number may be in flight."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self._heard = True
        """Whether any data arrived since the last ping."""
        self._missed = 0
        self._ping_timer: asyncio.TimerHandle | None = None
        self._loss: str | None = None
        self._pong: asyncio.Future[None] | None = None
        """Done once a pong has arrived."""
        self._problem: str | None = None
        self._reader = FrameDecoder(bytes_max=FRAME_BYTES_MAX)
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._transport: asyncio.Transport
        self.closed = False
        self.stood_still = False

    async def authenticate(self, secret: str) -> None:
        """Send the secret, and wait until it is accepted.

        Raises:
            ShardUnreachable: the shard closed the connection, or speaks another version.
        """
        authenticated = self._register_call(0)
        self._transport.write(encode_frame(FrameKind.AUTH, 0, greeting(VERSION, secret.encode())))
        try:
            version, _ = parse_greeting(await authenticated)
        except ShardUnreachable as error:
            raise ShardUnreachable(str(error), delivered=False) from None
        except FrameError:
            raise ShardUnreachable("no greeting", delivered=False) from None
        finally:
            self._calls.pop(0, None)
        if version != VERSION:
            message = f"the shard speaks version {version} of the protocol, not {VERSION}"
            raise ShardUnreachable(message, delivered=False)
        self._ping()

    async def call(self, payload: bytes) -> bytes:
        """Send ``payload`` to the shard and return its response.

        Raises:
            ShardUnreachable: the connection is broken; ``delivered`` is False if it was before.
            RemoteCallError: the shard raised.
        """
        if self.closed:
            raise ShardUnreachable("the connection was closed", delivered=False)
        self._number = self._number % 0xFFFF_FFFF + 1
        number = self._number
        answered = self._register_call(number)
        self._transport.write(encode_frame(FrameKind.CALL, number, payload))
        try:
            return await answered
        finally:
            self._calls.pop(number, None)

    async def writing_problem(self) -> str | None:
        """Why the shard can't write, as of its last pong; None if it can.

        Raises:
            ShardUnreachable: the connection is broken.
        """
        if self._pong is None:
            self._pong = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._pong)
        if self.closed:
            raise ShardUnreachable(self._loss or "the connection was closed", delivered=False)
        return self._problem

    def close(self) -> None:
        self._transport.abort()

    def _ping(self) -> None:
        """Send a ping. Close the connection if too many were not answered."""
        self._missed = 0 if self._heard else self._missed + 1
        if self._missed >= self._heartbeat.shard_pings_missed_max:
            self.stood_still, self._loss = True, "the shard does not answer pings"
            self._transport.abort()
            return
        self._heard = False
        self._transport.write(encode_frame(FrameKind.PING, 0, b""))
        loop = asyncio.get_running_loop()
        self._ping_timer = loop.call_later(self._heartbeat.shard_ping_s, self._ping)

    def _pong_received(self) -> None:
        if self._pong is None:
            self._pong = asyncio.get_running_loop().create_future()
        if not self._pong.done():
            self._pong.set_result(None)

    def _register_call(self, number: int) -> "asyncio.Future[bytes]":
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        return future

    # -- called by the event loop --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no `asyncio.Transport`, but do all that one does.
        self._transport = cast("asyncio.Transport", transport)
        enable_keepalive(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for kind, number, payload in self._reader.feed(data):
                if kind == FrameKind.PONG:
                    self._problem = payload.decode(errors="replace") or None
                    self._pong_received()
                    continue
                future = self._calls.get(number)
                if future is None or future.done():
                    continue  # Its caller has stopped waiting.
                if kind == FrameKind.ERROR:
                    future.set_exception(RemoteCallError(payload.decode(errors="replace")))
                else:
                    future.set_result(payload)
        except FrameError:
            self._transport.abort()

    def connection_lost(self, cause: Exception | None) -> None:
        self.closed = True
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        self._pong_received()
        for future in self._calls.values():
            if not future.done():
                message = f"the connection broke: {self._loss or cause or 'closed by the shard'}"
                future.set_exception(ShardUnreachable(message, delivered=True))
