"""An ingress replica's connection to a shard's port (`actors.shard_listener`)."""

import asyncio
import socket
from typing import Final, cast

from actors.dispatcher import ShardUnreachable
from actors.frames import FRAME_BYTES_MAX, FrameError, FrameReader, Kind, frame
from actors.shard_listener import Address

_CONNECT_TIMEOUT_S: Final = 2.0

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
_UNACKNOWLEDGED_MS: Final = 5_000
"""A node that vanished says nothing: after about five seconds its connections count as broken."""


class ShardBug(Exception):
    """The shard raised where it should have answered."""


async def open_channel(address: Address) -> "ShardChannel":
    """Connect to a shard.

    Raises:
        ShardUnreachable: nobody answers there who takes this secret; nothing was delivered.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            transport, channel = await loop.create_connection(
                ShardChannel, address.host, address.port
            )
            try:
                await channel.greet(address.secret)
            except BaseException:
                transport.abort()
                raise
    except (OSError, TimeoutError) as error:
        raise ShardUnreachable(f"no connection: {error!r}", delivered=False) from error
    return channel


class ShardChannel(asyncio.Protocol):
    """Calls over one connection; any number may be under way."""

    def __init__(self) -> None:
        self._reader = FrameReader(bytes_max=FRAME_BYTES_MAX)
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._transport: asyncio.Transport
        self.closed = False

    async def greet(self, secret: str) -> None:
        """Say the secret, and wait until it is taken.

        Raises:
            ShardUnreachable: the shard broke the connection instead.
        """
        greeted = self._expect(0)
        self._transport.write(frame(Kind.HELLO, 0, secret.encode()))
        try:
            await greeted
        except ShardUnreachable as error:
            raise ShardUnreachable(str(error), delivered=False) from None

    async def call(self, payload: bytes) -> bytes:
        """Hand ``payload`` to the shard and return its answer.

        Raises:
            ShardUnreachable: the connection is broken; ``delivered`` says whether it was before.
            ShardBug: the shard raised.
        """
        if self.closed:
            raise ShardUnreachable("the connection was closed", delivered=False)
        self._number = self._number % 0xFFFF_FFFF + 1
        number = self._number
        answered = self._expect(number)
        self._transport.write(frame(Kind.CALL, number, payload))
        try:
            return await answered
        finally:
            self._calls.pop(number, None)

    def close(self) -> None:
        self._transport.abort()

    def _expect(self, number: int) -> "asyncio.Future[bytes]":
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        return future

    # -- called by the event loop --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no `asyncio.Transport`, but do all that one does.
        self._transport = cast("asyncio.Transport", transport)
        _detect_loss(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, payload in self._reader.feed(data):
                future = self._calls.get(number)
                if future is None or future.done():
                    continue  # Its caller waits no longer.
                if kind == Kind.ERROR:
                    future.set_exception(ShardBug(payload.decode(errors="replace")))
                else:
                    future.set_result(payload)
        except FrameError:
            self._transport.abort()

    def connection_lost(self, cause: Exception | None) -> None:
        self.closed = True
        for future in self._calls.values():
            if not future.done():
                message = f"the connection broke: {cause or 'closed by the shard'}"
                future.set_exception(ShardUnreachable(message, delivered=True))


def _detect_loss(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # Not everywhere: macOS lacks some.
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
