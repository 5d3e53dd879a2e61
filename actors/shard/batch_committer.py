"""One attempt to write a batch: read what the cache lacks, decide, commit, then reply."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from time import perf_counter
from typing import Final, Protocol

import structlog

from actors.journal.assertions import assert_loaded, assert_writable
from actors.journal.ports import EventRange, Journal, JournalConflict, LoadedState
from actors.shard.batch_decision import BatchDecider
from actors.shard.batch_timings import BatchTimes, ShardTimings
from actors.shard.cache import WalletCache
from actors.shard.counts import ShardCounts
from actors.shard.failures import FORKED_UNKNOWN, HISTORY_FORKED, fail_all
from actors.shard.mailbox import QueuedRequest
from actors.shard.required_reads import required_reads
from actors.shard.retry_group import RetryGroup
from actors.shard.stall_detector import StallDetector
from actors.shard.tracing import trace_batch
from runtime import tracing
from wallet.commands import CommandRequest, CreateWallet
from wallet.events import RecordedEvent
from wallet.expiry_rules import ANY_EXPIRY, ExpiryBounds
from wallet.ids import TransferId, WalletId
from wallet.state import Transfer, TransferStatus, TransferType, Wallet

_log = structlog.get_logger(__name__)


class EventRelay(Protocol):
    """Takes committed events and publishes them to the stream."""

    @property
    def backlog(self) -> int:
        """Events committed and not yet acknowledged by the stream."""

    def add(self, event_range: EventRange, recorded: list[RecordedEvent]) -> None:
        """Queue events that this shard just committed."""

    def add_from_journal(self, event_ranges: Iterable[EventRange]) -> None:
        """Queue events in the journal that another shard may have left unpublished."""

    def reset(self) -> None:
        """Drop all queued events: the journal may have lost them. The outbox is read again."""


class History(Protocol):
    """Knows whether the database has the history that was acknowledged to clients."""

    async def require(self, session: int) -> bool:
        """Return once the database behind ``session`` may be written. True: it was checked first.

        Raises:
            SessionLost: the session has ended.
            JournalUnavailable: not yet.
        """


class BatchCommitter:
    """Holds a shard's wallet cache, and the database session that it was read over."""

    def __init__(
        self,
        *,
        journal: Journal,
        relay: EventRelay,
        cache: WalletCache,
        counts: ShardCounts,
        stall: StallDetector,
        now: Callable[[], datetime],
        history: History | None = None,
        expiry_bounds: ExpiryBounds = ANY_EXPIRY,
        on_expiring: Callable[[datetime], None] = lambda _at: None,
    ) -> None:
        self._journal = journal
        self._relay = relay
        self._cache = cache
        self._counts = counts
        self._stall = stall
        self._now = now
        self._history = history
        self._expiry_bounds = expiry_bounds
        self._on_expiring = on_expiring
        self._deciding = asyncio.Lock()
        self._session: int | None = None
        """The journal's session that the cache and the relay's events belong to."""
        self.timings = ShardTimings()

    async def enter_session(self) -> None:
        """Use the journal's current session, between two batches.

        A shard that is idle when its database is replaced would otherwise keep the cache and the
        relay's events of the former one until its next batch.

        Raises:
            JournalUnavailable, SessionLost: there is none that may be used now.
        """
        async with self._deciding:
            await self._enter_session()

    async def decide_and_commit(self, group: RetryGroup) -> None:
        """Answer every request of ``group``; or raise what the journal raised and answer none."""
        async with self._deciding:
            await self._decide_and_commit(group)

    async def _decide_and_commit(self, group: RetryGroup) -> None:
        clock = asyncio.get_running_loop().time
        queued_until, dequeued = clock(), perf_counter()
        requests = [queued.request for queued in group.queued_requests]
        session = await self._enter_session()
        loaded = await self._load(requests, session, maybe_applied=group.maybe_applied)
        self._stall.restart()
        if loaded.forked:
            self._answer_forked(group, loaded)
            if not group.queued_requests:
                return
            requests = [queued.request for queued in group.queued_requests]

        # No await from here to the commit: the batch is decided on exactly the state that was read.
        started, loaded_at = clock(), perf_counter()
        batch = BatchDecider(
            cache=self._cache,
            loaded=loaded,
            now=self._now(),
            maybe_applied=group.maybe_applied,
            outcome_unknown=group.unknown_outcomes > 0,
            expiry_bounds=self._expiry_bounds,
        )
        replies = [batch.decide(request) for request in requests]
        decided = perf_counter()
        write = batch.write
        # What others left unpublished may be on this server only; publishing can't be undone.
        write.confirm |= bool(loaded.unpublished)
        if write.wallets or write.stored_answers or write.confirm:
            assert_writable(write)
            await self._journal.commit(write, session=session)
        committed = perf_counter()
        self._stall.journal_ready = True

        # Committed: update the cache first (INV-8), then reply, then publish.
        self._update_cache(batch, loaded)
        for queued, reply in zip(group.queued_requests, replies, strict=True):
            queued.answer(reply)
        times = BatchTimes(
            queued_until, dequeued, loaded_at, decided, committed, answered=perf_counter()
        )
        if tracing.enabled:
            trace_batch(requests, batch.write.events, times)
        # Earlier events of these wallets are relayed before any later one. (INV-9)
        self._relay.add_from_journal(loaded.unpublished)
        self._enqueue_events(batch)
        if batch.first_expiry is not None:
            self._on_expiring(batch.first_expiry)
        self._counts.record(batch, requests, took_s=clock() - started)
        self.timings.record(group.queued_requests, times)

    def _answer_forked(self, group: RetryGroup, loaded: LoadedState) -> None:
        """Answer the requests for wallets whose history has forked; keep the others."""
        for wallet_id in loaded.forked:
            loaded.wallets.pop(wallet_id, None)
        loaded.unpublished = [one for one in loaded.unpublished if one.wallet_id in loaded.wallets]
        forked = [
            queued
            for queued in group.queued_requests
            if not loaded.forked.isdisjoint(wallets_of(queued.request))
        ]
        group.queued_requests = [one for one in group.queued_requests if one not in forked]
        fail_all(forked, FORKED_UNKNOWN if group.unknown_outcomes else HISTORY_FORKED)

    async def _enter_session(self) -> int:
        """The session that a batch is read and committed over. A new one clears the cache."""
        session = await self._journal.connect()
        if session != self._session:
            if self._session is not None:
                _log.warning("journal session changed, cache cleared", wallets=len(self._cache))
                self._cache.clear()
                self._relay.reset()
            self._session = session
        # After the reset: until then the relay may publish events that the database has lost, and
        # the comparison would come too early to see them.
        if self._history is not None:
            with self._stall.checking_database():
                was_checked = await self._history.require(session)
            if was_checked:
                self._stall.restart_ready()
        return session

    async def _load(
        self, requests: list[CommandRequest], session: int, *, maybe_applied: bool
    ) -> LoadedState:
        missing = required_reads(requests, self._cache, maybe_applied=maybe_applied)
        if not missing:
            return _NOTHING_LOADED
        loaded = await self._journal.load(missing, session=session)
        assert_loaded(loaded)
        self._raise_if_stale(loaded)
        return loaded

    def _raise_if_stale(self, loaded: LoadedState) -> None:
        """A transfer that its wallet in the cache doesn't know: another shard has written
        meanwhile, or the journal has lost what the cache remembers.

        The commit would fail. But before that, `evolve` would release a hold that the cached
        wallet does not have.
        """
        by_wallet: dict[WalletId, list[Transfer]] = {}
        for (wallet_id, _), transfer in loaded.transfers.items():
            by_wallet.setdefault(wallet_id, []).append(transfer)
        for wallet_id, transfers in by_wallet.items():
            active = self._cache.get(wallet_id)
            known = loaded.wallets.get(wallet_id) or (active.state if active else None)
            if known is None:
                continue
            cached = active.pending if active is not None else {}
            newest = max(transfer.created_version for transfer in transfers)
            held = cached | {transfer.id: transfer for transfer in transfers}
            if (
                newest > known.version
                or not _holds(known, [*cached.values(), *transfers])
                or not _counts_refunds(held)
            ):
                raise JournalConflict(
                    "the cache differs from the journal", wallet_ids=frozenset({wallet_id})
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
        events: dict[WalletId, list[RecordedEvent]] = {}
        for recorded in batch.write.events:
            events.setdefault(recorded.wallet_after.id, []).append(recorded)
        for event_range in batch.write.spans():
            recorded_events = events[event_range.wallet_id]
            assert len(recorded_events) == event_range.last - event_range.first + 1, (
                "INV-10 one version per event"
            )
            self._relay.add(event_range, recorded_events)

    def invalidate(
        self, queued_requests: list[QueuedRequest], conflicting: frozenset[WalletId] = frozenset()
    ) -> None:
        """Drop the ``conflicting`` wallets from the cache; if none is named, all wallets of
        ``queued_requests``."""
        for wallet_id in conflicting:
            self._cache.forget(wallet_id)
        if conflicting:
            return
        for queued in queued_requests:
            for wallet_id in wallets_of(queued.request):
                self._cache.forget(wallet_id)


def wallets_of(request: CommandRequest) -> Iterator[WalletId]:
    """The wallet of ``request``, and those that it creates."""
    yield request.wallet_id
    for item in request.items:
        if isinstance(item.command, CreateWallet):
            yield item.command.wallet_id


def _holds(wallet: Wallet, transfers: Iterable[Transfer]) -> bool:
    """Whether ``wallet`` holds the money of those that are pending; none is there twice."""
    held = dict.fromkeys(TransferType, 0)
    for transfer in transfers:
        if transfer.status is TransferStatus.PENDING:
            held[transfer.type] += transfer.pending_amount
    return (
        held[TransferType.DEBIT] <= wallet.pending_debit
        and held[TransferType.CREDIT] <= wallet.pending_credit
    )


def _counts_refunds(transfers: Mapping[TransferId, Transfer]) -> bool:
    """Whether each of ``transfers`` counts what the pending refunds among them hold of it."""
    held: dict[TransferId, int] = {}
    for refund in transfers.values():
        if refund.refunds is not None and refund.refunds in transfers:
            held[refund.refunds] = held.get(refund.refunds, 0) + refund.pending_amount
    return all(amount <= _pending_refunds(transfers[id]) for id, amount in held.items())


def _pending_refunds(transfer: Transfer) -> int:
    return 0 if transfer.refunded is None else transfer.refunded.pending


_NOTHING_LOADED: Final = LoadedState()
