"""NATS JetStream as far as the service uses it: one stream, its duplicate window, its consumers."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from nats.js.api import ConsumerConfig

from actors.ports import (
    JournalConflict,
    JournalUnavailable,
    Message,
    OutcomeUnknown,
    PublishFailed,
)
from tests.simulation.connections import Connection
from tests.simulation.loop import SimulatedLoop

T = TypeVar("T")

_FAILURES = (JournalConflict, JournalUnavailable, OutcomeUnknown)
"""What a connection may raise, whatever the server."""


class Stored(NamedTuple):
    """A message on the stream."""

    sequence: int
    message: Message


class StreamServer:
    """Stores messages in order, and drops an id that it saw within the duplicate window."""

    def __init__(self, loop: SimulatedLoop, *, duplicate_window_s: float) -> None:
        self._loop = loop
        self._window_s = duplicate_window_s
        self._seen: dict[str, float] = {}
        self.stored: list[Stored] = []
        self.consumers: dict[str, Consumer] = {}

    def publish_whole(self, messages: Sequence[Message]) -> bool:
        """Store all of ``messages``, or none if one of them is a repetition."""
        if any(self._repeats(message) for message in messages):
            return False
        for message in messages:
            self.publish(message)
        return True

    def publish(self, message: Message) -> None:
        if not self._repeats(message):
            self._seen[message.id] = self._loop.time()
            self.stored.append(Stored(len(self.stored) + 1, message))

    def _repeats(self, message: Message) -> bool:
        seen_at = self._seen.get(message.id)
        return seen_at is not None and self._loop.time() - seen_at < self._window_s


class SimulatedStream:
    """Implements `EventStream`, as the real adapter does it: whole batches, else one by one."""

    def __init__(self, server: StreamServer, connection: Connection) -> None:
        self._server = server
        self._connection = connection

    async def prepare(self) -> None:
        await self._ask(lambda: None)

    async def publish(self, messages: Sequence[Message]) -> None:
        whole = list(messages)
        if len(whole) > 1 and await self._ask(lambda: self._server.publish_whole(whole)):
            return
        for message in whole:
            await self._publish_one(message)

    async def _publish_one(self, message: Message) -> None:
        await self._ask(lambda: self._server.publish(message))

    async def _ask(self, request: Callable[[], T]) -> T:
        try:
            return await self._connection.ask(request)
        except _FAILURES as failure:
            raise PublishFailed(str(failure)) from failure


class Consumer:
    """A durable pull consumer with AckPolicy.ALL, as the server keeps it."""

    def __init__(self, config: ConsumerConfig) -> None:
        self.name = config.durable_name or ""
        self._batch_max = config.max_ack_pending or 1_000
        self._ack_wait_s = config.ack_wait or 30.0
        self._prefixes = tuple(one.removesuffix(">") for one in config.filter_subjects or ())
        self._acknowledged = 0
        self._delivered = 0
        self._delivered_at = 0.0

    def take(self, stored: list[Stored], wanted: int, now: float) -> list[Stored]:
        """The next messages; the unacknowledged ones again once ``ack_wait`` is over."""
        if self._delivered > self._acknowledged:
            if now - self._delivered_at < self._ack_wait_s:
                return []
            self._delivered = self._acknowledged
        found: list[Stored] = []
        for one in stored[self._delivered :]:
            if len(found) == min(wanted, self._batch_max):
                break
            if one.message.subject.startswith(self._prefixes):
                found.append(one)
        if found:
            self._delivered = found[-1].sequence
            self._delivered_at = now
        return found

    def acknowledge(self, sequence: int) -> None:
        self._acknowledged = max(self._acknowledged, sequence)


class _Metadata(NamedTuple):
    num_pending: int


class Delivered:
    """A message as a subscriber gets it: the part of ``nats.aio.msg.Msg`` that is used."""

    def __init__(self, stored: Stored, consumer: Consumer, ask: Callable[..., Any]) -> None:
        self.data = stored.message.payload
        self.metadata = _Metadata(0)
        self._sequence = stored.sequence
        self._consumer = consumer
        self._ask = ask

    async def ack(self) -> None:
        await self._ask(lambda: self._consumer.acknowledge(self._sequence))


class Reader:
    """A NATS client's JetStream context: the part that the projections use."""

    def __init__(self, loop: SimulatedLoop, server: StreamServer, connection: Connection) -> None:
        self._loop = loop
        self._server = server
        self._connection = connection

    def jetstream(self) -> "Reader":
        return self

    async def consumers_info(self, _stream: str) -> list[Consumer]:
        return await self._ask(lambda: list(self._server.consumers.values()))

    async def delete_consumer(self, _stream: str, name: str) -> None:
        await self._ask(lambda: self._server.consumers.pop(name, None))

    async def add_consumer(self, _stream: str, config: ConsumerConfig) -> None:
        made = Consumer(config)
        await self._ask(lambda: self._server.consumers.setdefault(made.name, made))

    async def pull_subscribe_bind(self, durable: str, stream: str) -> "Subscription":
        return Subscription(self._loop, self._server, durable, self._ask)

    async def _ask(self, request: Callable[[], T]) -> T:
        try:
            return await self._connection.ask(request)
        except _FAILURES as failure:
            raise OSError(str(failure)) from failure


class Subscription:
    """A pull subscription."""

    def __init__(
        self,
        loop: SimulatedLoop,
        server: StreamServer,
        durable: str,
        ask: Callable[..., Any],
    ) -> None:
        self._loop = loop
        self._server = server
        self._durable = durable
        self._ask = ask

    async def fetch(self, batch: int, timeout: float) -> list[Delivered]:
        until = self._loop.time() + timeout
        while self._loop.time() < until:
            consumer = self._server.consumers.get(self._durable)
            if consumer is None:
                raise OSError("consumer not found")
            found = await self._ask(
                lambda taker=consumer: taker.take(self._server.stored, batch, self._loop.time())
            )
            if found:
                return [Delivered(one, consumer, self._ask) for one in found]
            await asyncio.sleep(timeout / 10)
        raise TimeoutError
