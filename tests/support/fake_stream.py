"""An in-memory stream with deduplication and injected faults."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto

from actors.journal.ports import Message, PublishFailed, StreamState
from wallet.ids import WalletId


def event_position(event_id: str) -> str:
    """Wallet and version of an event id, without the hash."""
    return ":".join(event_id.split(":")[:2])


class StreamFault(Enum):
    """How the next publish fails."""

    NOT_STORED = auto()
    """The stream did not receive it."""
    STORED_BUT_NOT_ACKNOWLEDGED = auto()
    """The stream stored it, but the acknowledgement is lost."""


class FakeStream:
    """Implements `EventStream`. A message whose id is stored already is dropped."""

    def __init__(self) -> None:
        self.stored: list[Message] = []
        self.calls: list[list[str]] = []
        """Each publish's events as wallet and version, failed ones included."""
        self.faults: deque[StreamFault | None] = deque()
        self.unreachable = False
        self.incarnation: str | None = None
        self.gate = asyncio.Event()
        """Publishing waits until this event is set."""
        self.gate.set()
        self.connection_epoch = 0
        self._is_connected = False
        self._changed = asyncio.Condition()
        self.purged = 0
        """Messages that were removed from the front; the sequences continue."""
        self.fills: list[str] = []
        """Labels of the fills in place that were begun."""
        self.max_age_s = 0.0
        self._remembered: set[str] = set()
        """Ids of purged messages: a server drops them as duplicates until it forgets them."""
        self.fills_that_forget_too_little = 0
        """The next fills that purge the stream leave the server with an id that it still knows."""

    def purge(self) -> None:
        """Remove all messages, as an operator would."""
        self.purged += len(self.stored)
        self._remembered.update(message.id for message in self.stored)
        self.stored.clear()

    def lose_power(self, *, keeps: int) -> None:
        """Drop all but the first messages, and break the connection."""
        del self.stored[keeps:]
        self._is_connected = False

    async def ensure_ready(self) -> StreamState:
        if self.unreachable:
            raise PublishFailed("injected: unavailable")
        self.connection_epoch += not self._is_connected
        self._is_connected = True
        return self.state

    @property
    def state(self) -> StreamState:
        last = self.purged + len(self.stored)
        return StreamState(self.incarnation, self.purged + 1, last, self.max_age_s)

    async def begin_fill(self, label: str, *, connection: int, purge: bool) -> StreamState:
        await self.ping(connection=connection)
        self.fills.append(label)
        created = (self.incarnation or "").partition("|")[0]
        self.incarnation = f"{created}|{label}-{len(self.fills)}"
        if purge:
            self.purge()
            remembered = sorted(self._remembered)[:1] if self.fills_that_forget_too_little else ()
            self.fills_that_forget_too_little -= bool(remembered)
            self._remembered.intersection_update(remembered)
        return self.state

    async def last_payloads(self, wallet_ids: Sequence[WalletId]) -> Sequence[bytes | None]:
        await self.ping(connection=self.connection_epoch)
        last = {message.subject.split(".")[3]: message.payload for message in self.stored}
        return [last.get(wallet_id) for wallet_id in wallet_ids]

    async def ping(self, *, connection: int) -> None:
        await asyncio.sleep(0)
        if self.unreachable or not self._is_connected or connection != self.connection_epoch:
            raise PublishFailed("injected: unavailable")

    async def publish(
        self, messages: Sequence[Message], *, connection: int, incarnation: str | None
    ) -> int:
        self.calls.append([event_position(message.id) for message in messages])
        await self._notify()
        await self.gate.wait()
        fault = self.faults.popleft() if self.faults else None
        refused = incarnation != self.incarnation
        is_another = not self._is_connected or connection != self.connection_epoch
        if self.unreachable or is_another or refused or fault is StreamFault.NOT_STORED:
            raise PublishFailed("injected: publish failed")
        known = {message.id for message in self.stored} | self._remembered
        self.stored += [message for message in messages if message.id not in known]
        await self._notify()
        if fault is StreamFault.STORED_BUT_NOT_ACKNOWLEDGED:
            raise PublishFailed("injected: acknowledgement lost")
        return self.purged + len(self.stored)

    @property
    def ids(self) -> list[str]:
        """The stored events as wallet and version."""
        return [event_position(message.id) for message in self.stored]

    async def until_stored(self, count: int) -> None:
        """Wait until ``count`` messages are stored."""
        await self._until(lambda: len(self.stored) >= count)

    async def until_called(self, times: int) -> None:
        """Wait until publishing was tried ``times`` times."""
        await self._until(lambda: len(self.calls) >= times)

    async def _until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(happened)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
