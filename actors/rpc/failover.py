"""Failover: while a shard is unreachable, the next shard on the ring takes its calls.

Ownership of a wallet only makes writes fast; the version check of every write keeps them correct
(INV-5). So calls don't wait for a dead shard's successor to start, which takes seconds: the next
shard on the ring loads the requested wallets, and evicts them when they are not used any more.
Events stay in order: loading a wallet first queues its unpublished events (INV-9).
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from actors.rpc.transport import ShardUnreachable

CONNECT_GRACE_S: Final = 0.25
"""How long to wait for a connection before calling the next shard. A starting actor answers only
once it has started."""

CONNECT_TIMEOUT_S: Final = 5.0
"""How long to wait for the first connections. While many processes start, Ray's calls are slow."""

RECONNECT_INTERVAL_S: Final = 0.1
"""Minimum time between two attempts to connect: getting the address from Ray costs about 1 ms."""


class Channel(Protocol):
    """A connection to one shard."""

    closed: bool
    stood_still: bool
    """It was closed because its shard did not answer pings."""

    async def call(self, payload: bytes) -> bytes:
        """Raises: ShardUnreachable: it broke."""

    async def writing_problem(self) -> str | None:
        """Why the shard can't write. Raises: ShardUnreachable: it broke."""


class FailoverTransport:
    """Implements `ShardTransport` over connections that ``connect`` opens."""

    def __init__(self, connect: Callable[[int], Awaitable[Channel]], *, shard_count: int) -> None:
        self._connect = connect
        self._shard_count = shard_count
        self._opening: dict[int, asyncio.Future[Channel]] = {}
        self._retry_at: dict[int, float] = {}
        """Loop times before which a shard is not tried again."""
        self._slow_to_connect: set[int] = set()
        """Shards that did not connect within the grace time; they may still do so."""

    async def warm_up(self) -> None:
        """Connect to every shard that answers within `CONNECT_TIMEOUT_S`.

        Otherwise the first calls wait for it, and go to other shards after `CONNECT_GRACE_S`.
        """
        opening: dict[int, asyncio.Future[Channel]] = {}
        for shard in range(self._shard_count):
            with suppress(ShardUnreachable):
                opening[shard] = self._opening.get(shard) or self._open(shard)
        if opening:
            await asyncio.wait(opening.values(), timeout=CONNECT_TIMEOUT_S)
        self._slow_to_connect.update(shard for shard, one in opening.items() if not one.done())

    async def call(self, shard: int, payload: bytes) -> bytes:
        channel = await self._reachable_channel(shard)
        return await channel.call(payload)

    async def writing_problem(self, shard: int) -> str | None:
        """Why a command for ``shard`` would not be written now, whichever shard takes it.

        Raises:
            ShardUnreachable: no shard can be reached.
        """
        channel = await self._reachable_channel(shard)
        return await channel.writing_problem()

    async def _reachable_channel(self, shard: int) -> Channel:
        """A connection to ``shard``, or to the first after it that can be reached.

        Raises:
            ShardUnreachable: none can; nothing was delivered.
        """
        failures: list[ShardUnreachable] = []
        for offset in range(self._shard_count):
            try:
                return await self._channel((shard + offset) % self._shard_count)
            except ShardUnreachable as failure:
                failures.append(failure)
        raise failures[0]

    def connect(self) -> None:
        """Begin to connect to every shard that has no connection; doesn't wait for any."""
        for shard in range(self._shard_count):
            with suppress(ShardUnreachable):
                self._connection(shard)

    def reaches_a_shard(self) -> bool:
        """Whether there is a connection that is not known to be broken."""
        return any(one.done() and not _is_unusable(one) for one in self._opening.values())

    async def _channel(self, shard: int) -> Channel:
        """The connection to ``shard``: the current one, or a new one that all callers share."""
        opening = self._connection(shard)
        if not opening.done():
            if shard in self._slow_to_connect:
                raise ShardUnreachable("still starting", delivered=False)
            # A caller that is cancelled must not cancel the connection of the others.
            await asyncio.wait({opening}, timeout=CONNECT_GRACE_S)
            if not opening.done():
                self._slow_to_connect.add(shard)
                raise ShardUnreachable("connecting takes too long", delivered=False)
        return opening.result()

    def _connection(self, shard: int) -> "asyncio.Future[Channel]":
        opening = self._opening.get(shard)
        if opening is not None and not _is_unusable(opening):
            return opening
        hangs = opening is not None and _stood_still(opening)
        opening = self._open(shard)
        if hangs:
            # It may connect again later; calls don't wait for that.
            self._slow_to_connect.add(shard)
        return opening

    def _open(self, shard: int) -> "asyncio.Future[Channel]":
        clock = asyncio.get_running_loop().time
        if clock() < self._retry_at.get(shard, 0.0):
            raise ShardUnreachable("it was unreachable a moment ago", delivered=False)
        self._retry_at[shard] = clock() + RECONNECT_INTERVAL_S
        self._slow_to_connect.discard(shard)
        opening = self._opening[shard] = asyncio.ensure_future(self._connect(shard))
        # Retrieve its exception even if no caller waits.
        opening.add_done_callback(_is_unusable)
        return opening


def _stood_still(opening: "asyncio.Future[Channel]") -> bool:
    if opening.cancelled() or opening.exception() is not None:
        return False
    return opening.result().stood_still


def _is_unusable(opening: "asyncio.Future[Channel]") -> bool:
    if not opening.done():
        return False
    return opening.cancelled() or opening.exception() is not None or opening.result().closed
