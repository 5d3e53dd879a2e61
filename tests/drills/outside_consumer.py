"""A consumer of another team: it reads the stream with a durable consumer of its own.

It keeps what it saw, and from that what it believes, by the rules that the documentation gives to
consumers: drop an event that you have by wallet and version; after ``wallet.rewound`` forget the
wallet's later events.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec
import nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

from tests.support.published import STREAM
from tests.support.waiting import stop, until_true
from verification.cloud_events import decode_message
from verification.facts import StreamMessage

NAME: Final = "outside"
REWOUND: Final = "wallet.rewound"

_FETCH: Final = 500
_FETCH_S: Final = 1.0
_RETRY_S: Final = 0.2
_CATCH_UP_S: Final = 60.0


class Seen(msgspec.Struct, frozen=True):
    """One delivery, duplicates included."""

    at: int
    """Monotonic clock, in nanoseconds."""
    sequence: int
    message_id: str
    type: str
    wallet_id: str
    version: int


class _Envelope(msgspec.Struct):
    type: str
    subject: str
    walletversion: int = 0
    data: dict[str, Any] = {}


_decode: Final = msgspec.json.Decoder(_Envelope).decode


class Belief:
    """What a consumer makes of the deliveries."""

    def __init__(self) -> None:
        self._wallets: dict[str, dict[int, StreamMessage]] = {}
        self.duplicates = 0
        self.gaps: list[Seen] = []
        """Deliveries whose predecessor had not been delivered."""
        self.rewound: list[str] = []
        """Wallets in the order of their ``wallet.rewound`` events."""
        self.forgotten: list[StreamMessage] = []
        """Events that it had, and that ``wallet.rewound`` took back."""

    def add(self, seen: Seen, subject: str, payload: bytes) -> None:
        """Take one delivery."""
        envelope = _decode(payload)
        if envelope.type == REWOUND:
            self._rewind(envelope)
        kept = self._wallets.setdefault(envelope.subject, {})
        if seen.version in kept:
            self.duplicates += 1
            return
        if seen.version > 1 and seen.version - 1 not in kept:
            self.gaps.append(seen)
        kept[seen.version] = decode_message(seen.sequence, seen.message_id, subject, payload)

    def messages(self) -> list[StreamMessage]:
        """The events that it believes in, per wallet by version."""
        return [kept[version] for kept in self._wallets.values() for version in sorted(kept)]

    def _rewind(self, envelope: _Envelope) -> None:
        self.rewound.append(envelope.subject)
        until = int(envelope.data["common_version"])
        kept = self._wallets.setdefault(envelope.subject, {})
        self.forgotten += [kept.pop(version) for version in sorted(kept) if version > until]


class OutsideConsumer:
    """Runs in the background; created by `outside_consumer`."""

    def __init__(self, client: nats.aio.client.Client) -> None:
        self._jetstream: JetStreamContext = client.jetstream(timeout=5)
        self.seen: list[Seen] = []
        self.belief = Belief()
        self.failures = 0
        """How often it had to begin again to read, for instance without a server."""

    async def run(self) -> None:
        while True:
            try:
                await self._read()
            except (NatsError, OSError, TimeoutError):
                self.failures += 1
                await asyncio.sleep(_RETRY_S)

    async def until_it_has_seen(self, sequence: Callable[[], Any]) -> None:
        """Wait until it has acknowledged everything up to the stream's newest message."""

        async def is_level() -> bool:
            last = await sequence()
            info = await self._jetstream.consumer_info(STREAM, NAME)
            return bool(info.num_pending == 0 and info.delivered.stream_seq >= last)

        await until_true(is_level, timeout_s=_CATCH_UP_S)

    async def _read(self) -> None:
        puller = await self._jetstream.pull_subscribe(
            "",
            durable=NAME,
            stream=STREAM,
            config=ConsumerConfig(
                durable_name=NAME,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.ALL,
                max_ack_pending=4 * _FETCH,
            ),
        )
        try:
            while True:
                messages: list[Msg] = []
                with suppress(TimeoutError):  # nothing new
                    messages = await puller.fetch(_FETCH, timeout=_FETCH_S)
                for message in messages:
                    self._keep(message)
                if messages:
                    await messages[-1].ack()
                else:
                    await puller.consumer_info()  # raises once the consumer is gone
        finally:
            with suppress(NatsError):
                await puller.unsubscribe()

    def _keep(self, message: Msg) -> None:
        envelope = _decode(message.data)
        seen = Seen(
            time.monotonic_ns(),
            message.metadata.sequence.stream,
            (message.headers or {}).get("Nats-Msg-Id", ""),
            envelope.type,
            envelope.subject,
            envelope.walletversion,
        )
        self.seen.append(seen)
        self.belief.add(seen, message.subject, message.data)


@asynccontextmanager
async def outside_consumer(url: str) -> AsyncIterator[OutsideConsumer]:
    """Reads the stream from its first message until the context ends."""

    async def ignore(_failure: Exception) -> None:
        """Counted as ``failures``."""

    client = await nats.connect(
        url, max_reconnect_attempts=-1, reconnect_time_wait=_RETRY_S, error_cb=ignore
    )
    consumer = OutsideConsumer(client)
    task = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        await stop(task)
        with suppress(NatsError):
            await client.jetstream(timeout=5).delete_consumer(STREAM, NAME)
        await client.close()
