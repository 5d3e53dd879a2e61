"""Simulated NATS JetStream: one stream with its duplicate window and consumers.

`stream_reader` is the client that reads it.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from nats.js.api import ConsumerConfig

from actors.journal.ports import (
    JournalConflict,
    JournalUnavailable,
    Message,
    OutcomeUnknown,
    PublishFailed,
    StreamState,
)
from tests.simulation.connections import Connection
from tests.simulation.loop import SimulatedLoop
from wallet.ids import WalletId

T = TypeVar("T")


class NoStream(OutcomeUnknown):
    """No responders on the stream's subjects."""


FAILURES = (JournalConflict, JournalUnavailable, OutcomeUnknown)
"""Errors of a connection, independent of the server."""


class Stored(NamedTuple):
    """A message on the stream."""

    sequence: int
    message: Message
    at: float = 0.0


class StoreCopy(NamedTuple):
    """The server's files, as they were at one moment."""

    incarnation: int
    fill: str
    exists: bool
    stored: "list[Stored]"
    last: int
    consumers: "dict[str, Consumer]"


class StreamServer:
    """Stores messages in order, and drops duplicate ids within the duplicate window.

    Messages stored in the last ``sync_s`` are not on disk yet.
    """

    def __init__(self, loop: SimulatedLoop, *, duplicate_window_s: float, sync_s: float) -> None:
        self._loop = loop
        self._window_s = duplicate_window_s
        self._sync_s = sync_s
        self.starts = 1
        """Connections don't outlive it."""
        self._seen: dict[str, float] = {}
        self.incarnation = 0
        self._created = 0
        self._fill = ""
        self._fills = 0
        self.exists = False
        self.stored: list[Stored] = []
        self._last = 0
        """The last sequence. It stays when messages are purged."""
        self.consumers: dict[str, Consumer] = {}

    def ensure(self) -> str:
        """Create the stream if it is missing; returns its incarnation."""
        if not self.exists:
            self.exists = True
            self._created += 1
            self.incarnation, self._fill = self._created, ""
        return self.name

    @property
    def name(self) -> str:
        """Of the incarnation."""
        return f"stream {self.incarnation}" + (f"|{self._fill}" if self._fill else "")

    @property
    def state(self) -> StreamState:
        first = self.stored[0].sequence if self.stored else self._last + 1
        return StreamState(self.name, first, self._last)

    def begin_fill(self, label: str, *, purge: bool) -> StreamState:
        self.require()
        self._fills += 1
        self._fill = f"{label}-{self._fills}"
        if purge:
            self.purge()
            self._seen.clear()
        return self.state

    def purge(self) -> None:
        """Remove all messages. Their ids stay known for the duplicate window."""
        self.stored = []

    def last_payloads(self, wallet_ids: Sequence[WalletId]) -> list[bytes | None]:
        self.require()
        last = {one.message.subject.split(".")[3]: one.message.payload for one in self.stored}
        return [last.get(wallet_id) for wallet_id in wallet_ids]

    def copy_store(self) -> StoreCopy:
        consumers = {name: copy.copy(one) for name, one in self.consumers.items()}
        return StoreCopy(
            self.incarnation, self._fill, self.exists, list(self.stored), self._last, consumers
        )

    def restore(self, store: StoreCopy) -> None:
        """Stop the server, put a copy of its files back, and start it."""
        self.starts += 1
        self.incarnation, self._fill, self.exists, self.stored, self._last, self.consumers = store
        # A server that starts reads the ids from its messages.
        self._seen = {one.message.id: one.at for one in self.stored}

    def remove(self) -> None:
        """Delete the stream with its messages, as an operator would."""
        self.exists = False
        self._seen.clear()
        self.stored, self._last = [], 0
        self.consumers.clear()

    def lose_power(self, *, keeps_all: bool) -> None:
        """All connections break; messages that are not synced may be lost."""
        self.starts += 1
        if keeps_all:
            return
        until = self._loop.time() - self._sync_s
        while self.stored and self.stored[-1].at > until:
            self._seen.pop(self.stored.pop().message.id, None)
            self._last -= 1
        for consumer in self.consumers.values():
            consumer.know_the_last(self._last)

    def require(self) -> None:
        if not self.exists:
            raise NoStream

    def require_start(self, number: int) -> None:
        """A request over a broken connection is lost."""
        if number != self.starts:
            raise NoStream

    def listens_at(self, incarnation: str | None) -> bool:
        """Whether messages for ``incarnation`` are accepted."""
        return incarnation == self.name

    def publish(self, messages: Sequence[Message], *, incarnation: str | None) -> int:
        """Store ``messages`` without duplicates; returns the last sequence, negative if all were.

        Subjects of another incarnation have no responders.
        """
        self.require()
        if not self.listens_at(incarnation):
            raise NoStream
        return max([self._store(message) for message in messages]) or -self._last

    def _store(self, message: Message) -> int:
        if self._repeats(message):
            return 0
        now = self._loop.time()
        self._seen[message.id] = now
        self._last += 1
        self.stored.append(Stored(self._last, message, now))
        return self._last

    def _repeats(self, message: Message) -> bool:
        seen_at = self._seen.get(message.id)
        return seen_at is not None and self._loop.time() - seen_at < self._window_s


class SimulatedStream:
    """Implements `EventStream`, as the real adapter does it."""

    def __init__(self, server: StreamServer, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._last_sequence = 0
        self._incarnation = ""
        self.connection_epoch = 0

    async def ensure_ready(self) -> StreamState:
        def request() -> tuple[StreamState, int]:
            self._server.ensure()
            return self._server.state, self._server.starts

        state, starts = await self._ask(request)
        if starts != self.connection_epoch:
            self.connection_epoch, self._last_sequence = starts, 0
        return self._know(state)

    async def begin_fill(self, label: str, *, connection: int, purge: bool) -> StreamState:
        def request() -> StreamState:
            self._server.require_start(connection)
            return self._server.begin_fill(label, purge=purge)

        return self._know(await self._ask(request))

    def _know(self, state: StreamState) -> StreamState:
        if state.incarnation != self._incarnation:
            self._incarnation, self._last_sequence = state.incarnation or "", 0
        return state

    async def last_payloads(self, wallet_ids: Sequence[WalletId]) -> Sequence[bytes | None]:
        return await self._ask(lambda: self._server.last_payloads(wallet_ids))

    async def publish(
        self, messages: Sequence[Message], *, connection: int, incarnation: str | None
    ) -> int:
        def request() -> int:
            self._server.require_start(connection)
            return self._server.publish(messages, incarnation=incarnation)

        if incarnation != self._incarnation:
            raise PublishFailed("the stream is another one by now")
        sequence = await self._ask(request)
        self._note_sequence(sequence)
        return abs(sequence)

    async def ping(self, *, connection: int) -> None:
        await self._ask(lambda: self._server.require_start(connection))

    def _note_sequence(self, sequence: int) -> None:
        if sequence <= 0:
            return
        before, self._last_sequence = self._last_sequence, sequence
        if sequence <= before:
            raise PublishFailed(
                f"the stream was created again: {before} was followed by {sequence}"
            )

    async def _ask(self, request: Callable[[], T]) -> T:
        try:
            return await self._connection.execute(request)
        except FAILURES as failure:
            raise PublishFailed(str(failure)) from failure


class _Floor(NamedTuple):
    stream_seq: int


class Consumer:
    """A durable pull consumer with AckPolicy.ALL, as the server keeps it."""

    def __init__(self, config: ConsumerConfig) -> None:
        self.name = config.durable_name or ""
        self._unacknowledged_max = config.max_ack_pending or 1_000
        self._ack_wait_s = config.ack_wait or 30.0
        self._prefixes = tuple(one.removesuffix(">") for one in config.filter_subjects or ())
        self._delivered = self._acknowledged = (config.opt_start_seq or 1) - 1
        self._delivered_at = 0.0

    @property
    def ack_floor(self) -> _Floor:
        return _Floor(self._acknowledged)

    def take(self, stored: list[Stored], wanted: int, now: float) -> list[Stored]:
        """The next messages; the unacknowledged ones again once ``ack_wait`` is over."""
        is_unacknowledged = self._delivered > self._acknowledged
        if is_unacknowledged and now - self._delivered_at >= self._ack_wait_s:
            self._delivered = self._acknowledged
        room = self._unacknowledged_max - (self._delivered - self._acknowledged)
        found: list[Stored] = []
        for one in stored:
            if one.sequence <= self._delivered:
                continue
            if len(found) >= min(wanted, room):
                break
            if one.message.subject.startswith(self._prefixes):
                found.append(one)
        if found:
            self._delivered = found[-1].sequence
            self._delivered_at = now
        return found

    def acknowledge(self, sequence: int) -> None:
        self._acknowledged = max(self._acknowledged, sequence)

    def know_the_last(self, sequence: int) -> None:
        """The stream was truncated there: later sequences will be other messages."""
        self._delivered = min(self._delivered, sequence)
        self._acknowledged = min(self._acknowledged, sequence)
