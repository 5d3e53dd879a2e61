"""Pulling the stream and folding it: batches, one transaction, acknowledged after the commit.

What if the process dies after the commit and before the acknowledgement: the batch comes again
and every row drops it by version. What if the stream lost events: the first event after the gap
doesn't connect, and the wallet is caught up from the journal. What if two pull for one group (an
upgrade): each removes the other's consumer and begins after what was acknowledged, until one of
them is stopped; nothing is skipped, and what is folded twice is dropped.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec
import structlog
import uuid6
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from projections.changes import decode_message, project_events
from projections.pull_subscription import PullEnded, PullSubscription
from projections.store import DeadLetter, ProjectionStore
from runtime import tracing
from runtime.metrics.histogram import Histogram
from wallet.event_codec import SUBJECT_ROOT

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_log = structlog.get_logger(__name__)

_RETRYABLE: Final = (
    NatsError,
    PullEnded,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""The sources are away for now: wait and begin again. What is `POISON` is caught before."""

POISON: Final = (
    msgspec.MsgspecError,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    ValueError,
    KeyError,
)
"""What no waiting makes foldable."""

_ATTEMPTS_MAX: Final = 3


class ConsumerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which share of the stream to fold, and in what portions."""

    stream: str
    group: int
    groups: int
    partitions: int
    batch_max: int
    poll_s: float
    ack_wait_s: float
    interval_s: float = 0.0

    @property
    def durable_prefix(self) -> str:
        """What the names of this group's consumers begin with: how the partitions are divided."""
        return f"projections-{self.group}-of-{self.groups}-"

    @property
    def group_prefixes(self) -> frozenset[str]:
        """The same for every group of this division."""
        return frozenset(f"projections-{group}-of-{self.groups}-" for group in range(self.groups))

    @property
    def subjects(self) -> list[str]:
        """The subjects of this group's partitions."""
        if self.groups == 1:
            return [f"{SUBJECT_ROOT}.>"]
        return [
            f"{SUBJECT_ROOT}.{partition}.>"
            for partition in range(self.partitions)
            if partition % self.groups == self.group
        ]


class ProjectionConsumer:
    """One group's puller. ``run`` is its task."""

    def __init__(self, *, client: Client, store: ProjectionStore, options: ConsumerOptions) -> None:
        self._client = client
        self._jetstream: JetStreamContext = client.jetstream()
        self._store = store
        self._options = options
        self.events = 0
        self.batches = 0
        self.gaps = 0
        self.failures = 0
        self.dead_letters = 0
        self.pending = 0
        """Events on the stream that are not folded yet, as of the last pull or `measure`."""
        self.fold_seconds = Histogram()
        self.ready = False
        self._name: str | None = None
        self._behind_since: datetime | None = datetime.now(UTC)
        """Since when there is something to fold, as far as is known; None: there is nothing."""

    @property
    def lag_s(self) -> float:
        """For how long there has been something on the stream that is not folded.

        While the stream can't be asked, the time since it last could.
        """
        if self._behind_since is None:
            return 0.0
        return max((datetime.now(UTC) - self._behind_since).total_seconds(), 0.0)

    async def refresh_lag(self) -> None:
        """Ask the stream how far behind it is, also while nothing can be folded."""
        if self._name is None:
            return
        with suppress(NatsError, OSError, TimeoutError):  # It is asked again soon.
            info = await self._jetstream.consumer_info(self._options.stream, self._name)
            self.pending = (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def run(self) -> None:
        """Fold until cancelled, through every outage of Postgres and NATS."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_RETRYABLE),
            # No end: a projection has nothing better to do than to wait for its sources.
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            after=self._note_failure,
        ):
            with attempt:
                await self._consume()

    def _note_failure(self, state: Any) -> None:
        self.failures += 1
        self.ready = False
        self._behind_since = self._behind_since or datetime.now(UTC)
        error = state.outcome.exception()
        _log.warning("projection interrupted", error=f"{type(error).__name__}: {error}")

    async def _consume(self) -> None:
        puller = await self._new_puller()
        await puller.open()
        try:
            self.ready = True
            while True:
                await self._consume_some(puller)
        finally:
            with suppress(NatsError):  # The connection may be gone.
                await puller.close()

    async def _consume_some(self, puller: PullSubscription) -> None:
        messages = await puller.fetch()
        if messages:
            taken = perf_counter()
            spans = _start_spans(messages) if tracing.enabled else ()
            await self._project(messages)
            for span in spans:
                span.end()
            self.fold_seconds.observe(perf_counter() - taken)
            await messages[-1].ack()  # AckPolicy.ALL: it and everything before it.
        self.pending = puller.pending
        if not self.pending:
            self._behind_since = None
        if messages and not puller.pending_on_server:
            # A transaction costs much and an event in it little: let some gather, for a moment.
            await asyncio.sleep(self._options.interval_s)

    async def _new_puller(self) -> PullSubscription:
        """A consumer of our own, from where the last one of this group had acknowledged.

        Not the same one: what a predecessor pulled and did not fold before it died would be
        acknowledged by our first acknowledgement, which covers everything before it.
        """
        options = self._options
        former = await self._consumers()
        name = f"{options.durable_prefix}{uuid6.uuid7().hex[-12:]}"
        await self._jetstream.add_consumer(
            options.stream,
            ConsumerConfig(
                durable_name=name,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._start_sequence(former),
                ack_policy=AckPolicy.ALL,
                ack_wait=options.ack_wait_s,
                max_ack_pending=2 * options.batch_max,
                filter_subjects=options.subjects,
            ),
        )
        await self._remove(former)
        self._name = name
        return PullSubscription(
            self._client,
            stream=options.stream,
            consumer=name,
            batch_max=options.batch_max,
            poll_s=options.poll_s,
        )

    async def _consumers(self) -> dict[str, int]:
        """Consumers of projections, and the stream sequence up to which each acknowledged."""
        return {
            consumer.name: consumer.ack_floor.stream_seq if consumer.ack_floor else 0
            for consumer in await self._jetstream.consumers_info(self._options.stream)
            if consumer.name.startswith("projections-")
        }

    def _start_sequence(self, former: dict[str, int]) -> int:
        """Where to begin: after our group's last, or after what a former division all had."""
        own = [
            floor for name, floor in former.items() if name.startswith(self._options.durable_prefix)
        ]
        if own:
            return max(own) + 1
        others = [floor for name, floor in former.items() if not self._is_current_group(name)]
        return min(others, default=0) + 1

    def _is_current_group(self, name: str) -> bool:
        return any(name.startswith(durable) for durable in self._options.group_prefixes)

    async def _remove(self, former: dict[str, int]) -> None:
        """Our group's former consumers; those of a former division once every group has begun."""
        begun = {self._options.durable_prefix} | {
            durable
            for durable in self._options.group_prefixes
            if any(name.startswith(durable) for name in former)
        }
        for name in former:
            ours = name.startswith(self._options.durable_prefix)
            outdated = not self._is_current_group(name) and begun == self._options.group_prefixes
            if ours or outdated:
                with suppress(NotFoundError):  # Another group was faster.
                    await self._jetstream.delete_consumer(self._options.stream, name)

    async def _project(self, messages: list[Msg]) -> None:
        """Fold ``messages`` as one batch; if that can't be done, one by one."""
        try:
            await self._fold_and_store(messages)
        except POISON as error:
            _log.warning(
                "projection batch failed, retrying events one by one", error=_describe(error)
            )
            for message in messages:
                await self._project_one(message)
        self.events += len(messages)
        self.batches += 1

    async def _project_one(self, message: Msg) -> None:
        """Fold one event; after bounded tries put it aside, so that the others go on."""
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                await self._fold_and_store([message])
            except POISON as error:
                if attempt == _ATTEMPTS_MAX:
                    await self._dead_letter(message, error)
            else:
                return

    async def _dead_letter(self, message: Msg, error: Exception) -> None:
        self.dead_letters += 1
        headers = message.headers or {}
        letter = DeadLetter(
            stream_sequence=message.metadata.sequence.stream,
            event_id=headers.get("Nats-Msg-Id", ""),
            subject=message.subject,
            payload=message.data,
            reason=_describe(error),
            attempts=_ATTEMPTS_MAX,
        )
        _log.error(
            "event dead-lettered",
            subject=letter.subject,
            event_id=letter.event_id,
            error=letter.reason,
        )
        await self._store.add_dead_letter(letter)

    async def _fold_and_store(self, messages: list[Msg]) -> None:
        events = [decode_message(message.subject, message.data) for message in messages]
        self._behind_since = events[0].time
        gaps = await self._store.project(project_events(events))
        self._behind_since = events[-1].time
        for wallet_id in gaps:
            self.gaps += 1
            _log.warning("projection gap filled from the journal", wallet_id=wallet_id)
            await self._store.catch_up(wallet_id)


def _start_spans(messages: list[Msg]) -> "list[Span]":
    """Spans of the events that are traced, below their publishing's."""
    traced = ((message, (message.headers or {}).get(tracing.HEADER)) for message in messages)
    return [
        tracing.start_span(
            "project", trace, "CONSUMER", {"messaging.destination.name": message.subject}
        )
        for message, trace in traced
        if trace is not None
    ]


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:1_000]
