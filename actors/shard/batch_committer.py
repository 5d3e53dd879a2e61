"""One try to write a batch: read what is missing, decide, commit, and only then answer."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from time import perf_counter
from typing import Final, Protocol

import structlog

from actors.journal.assertions import assert_loaded, assert_writable
from actors.journal.ports import EventRange, Journal, JournalConflict, LoadedState
from actors.shard.batch_decision import BatchDecider, required_reads
from actors.shard.batch_timings import BatchTimes, ShardTimings
from actors.shard.cache import WalletCache
from actors.shard.counts import ShardCounts
from actors.shard.mailbox import QueuedRequest
from actors.shard.retry_group import RetryGroup
from actors.shard.stall_detector import StallDetector
from actors.shard.tracing import trace_batch
from runtime import tracing
from wallet.commands import CommandRequest, CreateWallet
from wallet.events import RecordedEvent
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)


class EventRelay(Protocol):
    """Where committed events go on their way to the stream."""

    @property
    def backlog(self) -> int:
        """Events committed and not yet acknowledged by the stream."""

    def add(self, span: EventRange, recorded: list[RecordedEvent], bodies: list[bytes]) -> None:
        """Events just committed by this shard."""

    def add_from_journal(self, spans: Iterable[EventRange]) -> None:
        """Events in the journal that somebody else may have left unpublished."""

    def reset(self) -> None:
        """Forget all events: the journal may not have them any more. Its outbox has what it has."""


class BatchCommitter:
    """Holds the memory of a shard's wallets, and the session that it was read over."""

    def __init__(
        self,
        *,
        journal: Journal,
        relay: EventRelay,
        cache: WalletCache,
        counts: ShardCounts,
        stall: StallDetector,
        now: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._relay = relay
        self._cache = cache
        self._counts = counts
        self._stall = stall
        self._now = now
        self._session: int | None = None
        """The journal's session that the cache and the relay's events belong to."""
        self.meters = ShardTimings()

    async def decide_and_commit(self, group: RetryGroup) -> None:
        """Answer every entry of ``group``, or none and raise what the journal raised."""
        entries = group.entries
        clock = asyncio.get_running_loop().time
        queued_until, taken = clock(), perf_counter()
        submissions = [entry.submission for entry in entries]
        session = await self._enter_session()
        loaded = await self._load(submissions, session, redo=group.maybe_applied)
        self._stall.restart()

        # From here to the commit nothing waits: what is decided on is what was looked at.
        started, loaded_at = clock(), perf_counter()
        batch = BatchDecider(
            cache=self._cache,
            loaded=loaded,
            now=self._now(),
            redo=group.maybe_applied,
            outcome_unknown=group.unknown_outcomes > 0,
        )
        replies = [batch.decide(submission) for submission in submissions]
        decided = perf_counter()
        write = batch.write
        # What others left unpublished may be on this server only; published it would be for good.
        write.confirm |= bool(loaded.unpublished)
        if write.wallets or write.idempotency_records or write.confirm:
            assert_writable(write)
            await self._journal.commit(write, session=session)
        committed = perf_counter()
        self._stall.journal_ready = True

        # Committed: only now memory moves (INV-8), then the answers, then the stream.
        self._update_cache(batch, loaded)
        for entry, reply in zip(entries, replies, strict=True):
            entry.answer(reply)
        times = BatchTimes(
            queued_until, taken, loaded_at, decided, committed, answered=perf_counter()
        )
        if tracing.enabled:
            trace_batch(submissions, batch.write.events, times)
        # Before any later event of these wallets can be relayed, the earlier ones must be. (INV-9)
        self._relay.add_from_journal(loaded.unpublished)
        self._enqueue_events(batch)
        self._counts.record(batch, submissions, took_s=clock() - started)
        self.meters.record(entries, times)

    async def _enter_session(self) -> int:
        """The session that a batch is read and committed over; memory of another one is dropped."""
        session = await self._journal.connect()
        if session != self._session:
            if self._session is not None:
                _log.warning("journal session changed, cache cleared", wallets=len(self._cache))
                self._cache.clear()
                self._relay.reset()
            self._session = session
        return session

    async def _load(
        self, submissions: list[CommandRequest], session: int, *, redo: bool
    ) -> LoadedState:
        missing = required_reads(submissions, self._cache, redo=redo)
        if not missing:
            return _NOTHING_LOADED
        loaded = await self._journal.load(missing, session=session)
        assert_loaded(loaded)
        self._raise_if_stale(loaded)
        return loaded

    def _raise_if_stale(self, loaded: LoadedState) -> None:
        """A transfer newer than what is known of its wallet: another owner has moved it on.

        The commit would be refused; but before that the fold would meet a hold that, as far as
        it can see, was never made.
        """
        for (wallet_id, _), transfer in loaded.transfers.items():
            active = self._cache.get(wallet_id)
            known = loaded.wallets.get(wallet_id) or (active.state if active else None)
            if known is not None and transfer.created_version > known.version:
                raise JournalConflict(
                    "memory is behind the journal", wallet_ids=frozenset({wallet_id})
                )

    def _update_cache(self, batch: BatchDecider, loaded: LoadedState) -> None:
        for wallet in batch.write.wallets.values():
            self._cache.put(wallet)
        for wallet_id, wallet in loaded.wallets.items():
            if wallet_id not in batch.write.wallets:
                self._cache.put(wallet)
        for (wallet_id, _), transfer in batch.transfers.items():
            self._cache.put_transfer(wallet_id, transfer)

    def _enqueue_events(self, batch: BatchDecider) -> None:
        events: dict[WalletId, tuple[list[RecordedEvent], list[bytes]]] = {}
        for recorded, body in zip(batch.write.events, batch.bodies, strict=True):
            of_wallet = events.setdefault(recorded.wallet_after.id, ([], []))
            of_wallet[0].append(recorded)
            of_wallet[1].append(body)
        for span in batch.write.spans():
            recorded_events, bodies = events[span.wallet_id]
            assert len(recorded_events) == span.last - span.first + 1, "INV-10 a version an event"
            self._relay.add(span, recorded_events, bodies)

    def invalidate(
        self, entries: list[QueuedRequest], conflicting: frozenset[WalletId] = frozenset()
    ) -> None:
        """Drop the memory of ``conflicting`` wallets; of all that ``entries`` are about if none is
        named."""
        for wallet_id in conflicting:
            self._cache.forget(wallet_id)
        if conflicting:
            return
        for entry in entries:
            self._cache.forget(entry.submission.wallet_id)
            for item in entry.submission.items:
                if isinstance(item.command, CreateWallet):
                    self._cache.forget(item.command.wallet_id)


_NOTHING_LOADED: Final = LoadedState()
