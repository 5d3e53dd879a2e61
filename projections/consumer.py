"""Consumes the stream: pulls a batch, applies it in one transaction, acknowledges after commit.

Failure cases:

- The process dies after the commit, before the acknowledgement: the batch is redelivered, and
  every row drops it by version.
- The stream lost events: the first event after the gap doesn't follow the stored version, and the
  wallet is caught up from the journal.
- The database lost commits: their events are not in the journal. They are dropped, and a wallet
  that had some of them applied is taken anew from the journal.
- Two processes consume for one group (during an upgrade): each deletes the other's durable
  consumer and starts after the acknowledged sequence, until one of them stops. Nothing is skipped,
  and duplicates are dropped by version.
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
from projections.store import DeadLetter, ProjectionStore, Reason, RefusedWallet
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
"""NATS or Postgres is unavailable: back off and start again. `POISON` is caught before."""

POISON: Final = (
    msgspec.MsgspecError,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    ValueError,
    KeyError,
)
"""Errors of an event itself: retrying later does not help."""

_ATTEMPTS_MAX: Final = 3


class ConsumerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which partitions of the stream to project, and the batch limits."""

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
        """Prefix of this group's durable names. It states how the partitions are divided."""
        return f"projections-{self.group}-of-{self.groups}-"

    @property
    def group_prefixes(self) -> frozenset[str]:
        """The prefixes of all groups of this division."""
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
    """The consumer of one group. ``run`` is its background task."""

    def __init__(self, *, client: Client, store: ProjectionStore, options: ConsumerOptions) -> None:
        self._client = client
        self._jetstream: JetStreamContext = client.jetstream()
        self._store = store
        self._options = options
        self.events = 0
        self.batches = 0
        self.gaps = 0
        self.lost_histories = 0
        self.failures = 0
        self.dead_letters = 0
        self.pending = 0
        """Events on the stream that are not applied yet, as of the last pull or `refresh_lag`."""
        self.fold_seconds = Histogram()
        self.ready = False
        self._name: str | None = None
        self._behind_since: datetime | None = datetime.now(UTC)
        """Time of the oldest event known to be unapplied; None if there is none."""

    @property
    def lag_s(self) -> float:
        """How long there have been unapplied events on the stream.

        While the stream is unreachable, the time since it was last reachable.
        """
        if self._behind_since is None:
            return 0.0
        return max((datetime.now(UTC) - self._behind_since).total_seconds(), 0.0)

    async def refresh_lag(self) -> None:
        """Read the lag from the stream, even while events can't be applied."""
        if self._name is None:
            return
        with suppress(NatsError, OSError, TimeoutError):  # The next period retries.
            info = await self._jetstream.consumer_info(self._options.stream, self._name)
            self.pending = (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def run(self) -> None:
        """Consume until cancelled; retry through outages of Postgres and NATS."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_RETRYABLE),
            # No stop condition: without its sources a projection can only wait.
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            after=self._on_failure,
        ):
            with attempt:
                await self._consume()

    def _on_failure(self, state: Any) -> None:
        self.failures += 1
        self.ready = False
        self._behind_since = self._behind_since or datetime.now(UTC)
        error = state.outcome.exception()
        _log.warning("projection interrupted", error=f"{type(error).__name__}: {error}")

    async def _consume(self) -> None:
        subscription = await self._new_subscription()
        await subscription.open()
        try:
            self.ready = True
            while True:
                await self._consume_batch(subscription)
        finally:
            with suppress(NatsError):  # The connection may be gone.
                await subscription.close()

    async def _consume_batch(self, subscription: PullSubscription) -> None:
        messages = await subscription.fetch()
        if messages:
            started = perf_counter()
            spans = _start_spans(messages) if tracing.enabled else ()
            await self._project(messages)
            for span in spans:
                span.end()
            self.fold_seconds.observe(perf_counter() - started)
            await messages[-1].ack()  # AckPolicy.ALL: it and everything before it.
        self.pending = subscription.pending
        if not self.pending:
            self._behind_since = None
        if messages and not subscription.pending_on_server:
            # A transaction costs much more than an event in it: let events accumulate briefly.
            await asyncio.sleep(self._options.interval_s)

    async def _new_subscription(self) -> PullSubscription:
        """A new durable consumer, starting after the group's last acknowledged sequence.

        The old one can't be reused: with AckPolicy.ALL our first acknowledgement would also cover
        messages that a predecessor pulled and did not apply before it died.
        """
        options = self._options
        previous = await self._consumers()
        name = f"{options.durable_prefix}{uuid6.uuid7().hex[-12:]}"
        await self._jetstream.add_consumer(
            options.stream,
            ConsumerConfig(
                durable_name=name,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._start_sequence(previous),
                ack_policy=AckPolicy.ALL,
                ack_wait=options.ack_wait_s,
                max_ack_pending=2 * options.batch_max,
                filter_subjects=options.subjects,
            ),
        )
        await self._remove(previous)
        self._name = name
        return PullSubscription(
            self._client,
            stream=options.stream,
            consumer=name,
            batch_max=options.batch_max,
            poll_s=options.poll_s,
        )

    async def _consumers(self) -> dict[str, int]:
        """Durable consumers of projections, with the stream sequence each acknowledged up to."""
        return {
            consumer.name: consumer.ack_floor.stream_seq if consumer.ack_floor else 0
            for consumer in await self._jetstream.consumers_info(self._options.stream)
            if consumer.name.startswith("projections-")
        }

    def _start_sequence(self, previous: dict[str, int]) -> int:
        """After our group's last acknowledged sequence; after a change of the division, after the
        lowest that all groups of the previous division acknowledged."""
        own = [
            floor
            for name, floor in previous.items()
            if name.startswith(self._options.durable_prefix)
        ]
        if own:
            return max(own) + 1
        others = [floor for name, floor in previous.items() if not self._is_current_group(name)]
        return min(others, default=0) + 1

    def _is_current_group(self, name: str) -> bool:
        return any(name.startswith(durable) for durable in self._options.group_prefixes)

    async def _remove(self, previous: dict[str, int]) -> None:
        """Delete our group's previous consumers; those of a previous division once every group of
        the new one has started."""
        started = {self._options.durable_prefix} | {
            durable
            for durable in self._options.group_prefixes
            if any(name.startswith(durable) for name in previous)
        }
        for name in previous:
            ours = name.startswith(self._options.durable_prefix)
            outdated = not self._is_current_group(name) and started == self._options.group_prefixes
            if ours or outdated:
                with suppress(NotFoundError):  # Another group deleted it first.
                    await self._jetstream.delete_consumer(self._options.stream, name)

    async def _project(self, messages: list[Msg]) -> None:
        """Apply ``messages`` as one batch; if the batch fails, one by one."""
        try:
            await self._apply(messages)
        except POISON as error:
            _log.warning(
                "projection batch failed, retrying events one by one", error=_describe(error)
            )
            for message in messages:
                await self._project_one(message)
        self.events += len(messages)
        self.batches += 1

    async def _project_one(self, message: Msg) -> None:
        """Apply one event; after ``_ATTEMPTS_MAX`` failures dead-letter it and go on."""
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                await self._apply([message])
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

    async def _apply(self, messages: list[Msg]) -> None:
        events = [decode_message(message.subject, message.data) for message in messages]
        self._behind_since = events[0].time
        changes = project_events(events)
        refused = await self._store.project(changes)
        self._behind_since = events[-1].time
        # While a release from before the chain is upgraded, its relays also publish events of this
        # release, without their hashes. The journal has them, but by another hash.
        without_hash = {row.id for row in changes.balances if not row.hash}
        for wallet in refused:
            self._report(wallet, is_known=wallet.wallet_id not in without_hash)
            await self._store.repair(wallet)

    def _report(self, wallet: RefusedWallet, *, is_known: bool) -> None:
        """``is_known``: the event's hash says which history it belongs to."""
        if wallet.reason is Reason.GAP or not is_known:
            self.gaps += 1
            _log.warning("projection gap filled from the journal", wallet_id=wallet.wallet_id)
        else:
            self.lost_histories += 1
            _log.error(
                "projection met a lost history", wallet_id=wallet.wallet_id, reason=wallet.reason
            )


def _start_spans(messages: list[Msg]) -> "list[Span]":
    """A span per traced event, as a child of its publish span."""
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
