"""A NATS client that reads the simulated stream: the part of nats-py that the projections use."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from nats.js.api import ConsumerConfig

from tests.simulation.connections import Connection
from tests.simulation.loop import SimulatedLoop
from tests.simulation.stream import FAILURES, Consumer, Stored, StreamServer

T = TypeVar("T")

_POLL_S: Final = 0.1
"""Poll interval of the server for messages for an open pull request."""


class _Sequence(NamedTuple):
    stream: int


class _Metadata(NamedTuple):
    num_pending: int
    sequence: _Sequence


class Delivered:
    """A message as a subscriber gets it: the part of ``nats.aio.msg.Msg`` that is used."""

    def __init__(self, stored: Stored, consumer: Consumer, ask: Callable[..., Any]) -> None:
        self.data = stored.message.payload
        self.subject = stored.message.subject
        self.headers = {"Nats-Msg-Id": stored.message.id}
        self.metadata = _Metadata(0, _Sequence(stored.sequence))
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
        self._subscription: Subscription | None = None

    def jetstream(self) -> "Reader":
        return self

    async def consumers_info(self, _stream: str) -> list[Consumer]:
        return await self._ask(self._list_consumers)

    def _list_consumers(self) -> list[Consumer]:
        self._server.require()
        return list(self._server.consumers.values())

    async def delete_consumer(self, _stream: str, name: str) -> None:
        await self._ask(lambda: self._server.consumers.pop(name, None))

    async def add_consumer(self, _stream: str, config: ConsumerConfig) -> None:
        made = Consumer(config)
        await self._ask(lambda: self._add_consumer(made))

    def _add_consumer(self, made: Consumer) -> None:
        self._server.require()
        self._server.consumers.setdefault(made.name, made)

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, _subject: str, cb: "Callback") -> "Subscription":
        self._subscription = Subscription(cb)
        return self._subscription

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        """A pull request, the only message that a reader publishes."""
        subscription, consumer = self._subscription, subject.rpartition(".")[2]
        assert subscription is not None, "a requester must have subscribed"
        request = msgspec.json.decode(payload)
        until = self._loop.time() + request["expires"] / 1e9
        subscription.serve(self._send(subscription, consumer, request["batch"], until, reply))

    async def _send(
        self, subscription: "Subscription", name: str, wanted: int, until: float, reply: str
    ) -> None:
        """Serve a pull request. If the connection breaks, the response is lost."""
        while wanted and self._loop.time() < until:
            consumer = self._server.consumers.get(name)
            if consumer is None:
                await subscription.cb(Status("409", reply))
                return
            try:
                found = await self._ask(self._taking(consumer, wanted))
            except OSError:
                return
            for one in found:
                await subscription.cb(Delivered(one, consumer, self._ask))
            wanted -= len(found)
            await asyncio.sleep(_POLL_S)
        if wanted:
            await subscription.cb(Status("408", reply))

    def _taking(self, consumer: "Consumer", wanted: int) -> Callable[[], list[Stored]]:
        return lambda: consumer.take(self._server.stored, wanted, self._loop.time())

    async def _ask(self, request: Callable[[], T]) -> T:
        try:
            return await self._connection.execute(request)
        except FAILURES as failure:
            raise OSError(str(failure)) from failure


class Status:
    """The status with which the server ends an unfilled pull request."""

    def __init__(self, code: str, reply: str) -> None:
        self.subject = reply
        self.headers = {"Status": code}


Callback = Callable[[Any], Awaitable[None]]


class Subscription:
    """A subscriber, and the messages in flight to it."""

    def __init__(self, cb: Callback) -> None:
        self.cb = cb
        self._sending: set[asyncio.Task[None]] = set()

    def serve(self, sending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def unsubscribe(self) -> None:
        for task in self._sending:
            task.cancel()
