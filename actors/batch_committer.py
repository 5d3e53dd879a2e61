"""One try to write a batch: read what is missing, decide, commit, and only then answer."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from time import perf_counter
from typing import Final, Protocol

import structlog

from actors.batch import Batch, what_is_missing
from actors.cache import WalletCache
from actors.journal_assertions import assert_loaded, assert_writable
from actors.mailbox import Entry
from actors.meters import BatchTimes, ShardMeters
from actors.ports import Journal, JournalConflict, Loaded, Span
from actors.retry_group import RetryGroup
from actors.shard_counts import ShardCounts
from actors.stall_detector import StallDetector
from actors.traces import batch_traced
from telemetry import tracing
from wallet.commands import CommandRequest, CreateWallet
from wallet.events import RecordedEvent
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)


class Relay(Protocol):
    """Where committed events go on their way to the stream."""

    @property
    def backlog(self) -> int:
        """Events committed and not yet acknowledged by the stream."""

    def add(self, span: Span, recorded: list[RecordedEvent], bodies: list[bytes]) -> None:
        """Events just committed by this shard."""

    def add_from_journal(self, spans: Iterable[Span]) -> None:
        """Events in the journal that somebody else may have left unpublished."""

    def reset(self) -> None:
        """Forget all events: the journal may not have them any more. Its outbox has what it has."""


class BatchCommitter:
    """Holds the memory of a shard's wallets, and the session that it was read over."""

    def __init__(
        self,
        *,
        journal: Journal,
        relay: Relay,
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
        self.meters = ShardMeters()

    async def decide_and_commit(self, group: RetryGroup) -> None:
        """Answer every entry of ``group``, or none and raise what the journal raised."""
        entries = group.entries
        clock = asyncio.get_running_loop().time
        queued_until, taken = clock(), perf_counter()
        submissions = [entry.submission for entry in entries]
        session = await self._enter_session()
        loaded = await self._load(submissions, session, redo=group.redo)
        self._stall.restart()

        # From here to the commit nothing waits: what is decided on is what was looked at.
        started, loaded_at = clock(), perf_counter()
        batch = Batch(
            cache=self._cache,
            loaded=loaded,
            now=self._now(),
            redo=group.redo,
            outcome_unknown=group.lost > 0,
        )
        replies = [batch.decide(submission) for submission in submissions]
        decided = perf_counter()
        write = batch.write
        # What others left unpublished may be on this server only; published it would be for good.
        write.confirm |= bool(loaded.unpublished)
        if write.after or write.keys or write.confirm:
            assert_writable(write)
            await self._journal.commit(write, session=session)
        committed = perf_counter()
        self._stall.journal_ready = True

        # Committed: only now memory moves (INV-8), then the answers, then the stream.
        self._remember(batch, loaded)
        for entry, reply in zip(entries, replies, strict=True):
            entry.answer(reply)
        times = BatchTimes(
            queued_until, taken, loaded_at, decided, committed, answered=perf_counter()
        )
        if tracing.on:
            batch_traced(submissions, batch.write.recorded, times)
        # Before any later event of these wallets can be relayed, the earlier ones must be. (INV-9)
        self._relay.add_from_journal(loaded.unpublished)
        self._relay_events(batch)
        self._counts.record(batch, submissions, took_s=clock() - started)
        self.meters.note(entries, times)

    async def _enter_session(self) -> int:
        """The session that a batch is read and committed over; memory of another one is dropped."""
        session = await self._journal.connect()
        if session != self._session:
            if self._session is not None:
                _log.warning("a new journal session: memory dropped", wallets=len(self._cache))
                self._cache.clear()
                self._relay.reset()
            self._session = session
        return session

    async def _load(self, submissions: list[CommandRequest], session: int, *, redo: bool) -> Loaded:
        missing = what_is_missing(submissions, self._cache, redo=redo)
        if not missing:
            return _NOTHING_LOADED
        loaded = await self._journal.load(missing, session=session)
        assert_loaded(loaded)
        self._refuse_if_behind(loaded)
        return loaded

    def _refuse_if_behind(self, loaded: Loaded) -> None:
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

    def _remember(self, batch: Batch, loaded: Loaded) -> None:
        for wallet in batch.write.after.values():
            self._cache.put(wallet)
        for wallet_id, wallet in loaded.wallets.items():
            if wallet_id not in batch.write.after:
                self._cache.put(wallet)
        for (wallet_id, _), transfer in batch.transfers.items():
            self._cache.put_transfer(wallet_id, transfer)

    def _relay_events(self, batch: Batch) -> None:
        events: dict[WalletId, tuple[list[RecordedEvent], list[bytes]]] = {}
        for recorded, body in zip(batch.write.recorded, batch.bodies, strict=True):
            of_wallet = events.setdefault(recorded.wallet_after.id, ([], []))
            of_wallet[0].append(recorded)
            of_wallet[1].append(body)
        for span in batch.write.spans():
            recorded_events, bodies = events[span.wallet_id]
            assert len(recorded_events) == span.last - span.first + 1, "INV-10 a version an event"
            self._relay.add(span, recorded_events, bodies)

    def forget(self, entries: list[Entry], conflicting: frozenset[WalletId] = frozenset()) -> None:
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


_NOTHING_LOADED: Final = Loaded()
