"""A shard: the single writer of the wallets that the ring gives it.

Theory of operation. One task takes whatever has queued (`Mailbox.drain`, no linger), reads what
is missing, decides every submission in order (`Batch`, pure), writes everything in one
transaction and only then moves its memory and answers. While that transaction is under way the
next batch queues up: the slower the disk, the larger the batches. That is all of group commit.

What if …

- the process dies before the commit: nothing happened; the caller delivers to the successor.
- it dies after the commit: the successor finds the transfer's id or key and answers from it.
- the commit's answer is lost: memory of the batch's wallets is dropped, and the same
  submissions are decided again as doubtful ones, that is, after looking up what they create. The
  lost commit may still come: what is refused now is refused for good, in the journal (INV-7).
- another actor owns the wallet too (an upgrade, a zombie): its commit moved the version, ours is
  refused whole (INV-5), memory is dropped, and the batch is decided again. A wallet that
  conflicts once more is decided apart, so that the others don't wait for it.
- the connection ends: the next one may lead to a server that lacks the last commits (a standby
  that was promoted). A batch is committed over the connection that its state was read on, and
  with the connection everything remembered goes.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from time import perf_counter
from typing import Final, Protocol

import msgspec
import structlog

from actors.batch import Batch, what_is_missing
from actors.cache import WalletCache
from actors.fair_queue import Overflow
from actors.mailbox import Delivery, Entry, Mailbox
from actors.meters import BatchTimes, ShardMeters
from actors.ports import (
    Journal,
    JournalBusy,
    JournalConflict,
    JournalRefused,
    JournalUnavailable,
    Loaded,
    OutcomeUnknown,
    SessionLost,
    Span,
)
from actors.protocol import Failure, FailureCode, Reply
from actors.traces import batch_traced
from telemetry import tracing
from wallet.commands import CreateWallet, Submission
from wallet.events import Recorded
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_RESOLVE_BACKOFF_S: Final = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Waits before asking again what became of a commit; the last one repeats until the deadline."""


_CONFLICT_PAUSES_S: Final = (0.0, 0.001, 0.004, 0.002, 0.007, 0.003, 0.010, 0.005)
"""Waits before deciding again after a conflict; they begin anew after the last one. Uneven, so as
not to keep step with the other writer: it needs one round trip for each of its commits, and who
must read first needs two."""

_APART_AFTER: Final = 2
"""Conflicts after which the wallets that conflict are decided apart from the others."""

_SESSION_PAUSE_S: Final = 0.01
"""Wait before connecting again after a session was lost in the middle of a batch."""

_LOCKED_S: Final = 1.0
"""For how long a wallet whose row was found locked is refused at once."""

_RATE_WEIGHT: Final = 0.1

_TOLD_MAX: Final = 5
"""Requests of a batch that the log names."""

_WATCH_S: Final = 0.25
"""How often a shard looks whether its database still answers."""


class ShardLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one shard; see the settings of the same names for their reasons."""

    mailbox_max: int
    mailbox_wallet_max: int
    batch_commands_max: int
    batch_wallet_share_max: int
    conflict_retries_max: int
    wallets_cached_max: int
    transfers_cached_max: int
    outbox_max: int
    stall_s: float


class Relay(Protocol):
    """Where committed events go on their way to the stream."""

    @property
    def backlog(self) -> int:
        """Events committed and not yet acknowledged by the stream."""

    def add(self, span: Span, recorded: list[Recorded], bodies: list[bytes]) -> None:
        """Events just committed by this shard."""

    def add_unread(self, spans: Iterable[Span]) -> None:
        """Events in the journal that somebody else may have left unpublished."""

    def reset(self) -> None:
        """Forget all events: the journal may not have them any more. Its outbox has what it has."""


class Shard:
    """Decides and writes. ``run`` is its only task; everything else is called on its loop."""

    def __init__(
        self, *, journal: Journal, relay: Relay, limits: ShardLimits, now: Callable[[], datetime]
    ) -> None:
        self._journal = journal
        self._relay = relay
        self._limits = limits
        self._now = now
        self._mailbox = Mailbox(
            items_max=limits.mailbox_max, wallet_items_max=limits.mailbox_wallet_max
        )
        self._cache = WalletCache(
            wallets_max=limits.wallets_cached_max, transfers_max=limits.transfers_cached_max
        )
        self._session: int | None = None
        """The journal's session that the cache and the relay's events belong to."""
        self._locked_until: dict[WalletId, float] = {}
        """Loop times until which wallets are refused whose rows are locked."""
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.meters = ShardMeters()
        self.largest_batch = 0
        self.journal_ready = True
        self._busy_since: float | None = None
        self._s_per_command = 0.0
        """Moving average: how fast the mailbox drains."""

    # -- taking submissions --------------------------------------------------------------------

    async def submit(self, submissions: list[Submission]) -> list[Reply]:
        """Queue ``submissions`` in order and return their replies, in the same order.

        What doesn't fit is refused at once, before anything is written.
        """
        delivery = Delivery(len(submissions))
        queued_at = asyncio.get_running_loop().time()
        for index, submission in enumerate(submissions):
            entry = Entry(submission, delivery, index, queued_at)
            refused = self._admit(entry)
            if refused is not None:
                entry.answer(Reply(failure=refused))
        await delivery.done.wait()
        return delivery.replies

    def _admit(self, entry: Entry) -> Failure | None:
        if self._relay.backlog >= self._limits.outbox_max:
            return _for(entry, _OUTBOX_FULL)
        if self._stalled():
            return _for(entry, _JOURNAL_DOWN)
        if self._locked_until and self._is_locked(entry.submission.wallet_id):
            return _for(entry, _WALLET_LOCKED)
        overflow = self._mailbox.put(entry)
        if overflow is None:
            return None
        self.counts["overloaded"] += 1
        if entry.submission.attempt > 1:
            return _for(entry, _JOURNAL_DOWN)
        what = "shard's" if overflow is Overflow.QUEUE else "wallet's"
        return Failure(
            code=FailureCode.OVERLOADED,
            detail=f"The {what} queue is full. This request applied nothing; try again later.",
            applied="no",
            retry_after_s=self._drain_estimate_s(),
        )

    def _is_locked(self, wallet_id: WalletId) -> bool:
        now = asyncio.get_running_loop().time()
        for other in [one for one, until in self._locked_until.items() if until <= now]:
            del self._locked_until[other]
        return wallet_id in self._locked_until

    def _drain_estimate_s(self) -> float:
        return self._mailbox.items * self._s_per_command

    # -- the one task -------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the mailbox until cancelled."""
        while True:
            await self._mailbox.wait()
            entries = self._mailbox.drain(
                items_max=self._limits.batch_commands_max,
                wallet_items_max=self._limits.batch_wallet_share_max,
            )
            self._busy_since = asyncio.get_running_loop().time()
            await self._serve(entries)
            self._busy_since = None

    async def watch(self) -> None:
        """Refuse what waits behind a batch that the database doesn't answer, until cancelled.

        The batch itself goes on: its outcome must be learnt. What is queued is surely not
        applied, and its callers shall know within about a second, not at their deadlines.
        """
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._stalled():
                waiting = self._mailbox.drain(
                    items_max=self._limits.mailbox_max,
                    wallet_items_max=self._limits.mailbox_max,
                )
                _answer_all(waiting, _JOURNAL_DOWN)

    def _stalled(self) -> bool:
        """A batch is under way that the database has failed, or leaves unanswered for too long."""
        if self._busy_since is None:
            return False
        waited_s = asyncio.get_running_loop().time() - self._busy_since
        return not self.journal_ready or waited_s > self._limits.stall_s

    async def _serve(self, entries: list[Entry]) -> None:
        """Answer every entry, trying again while that is safe and in time."""
        groups = [_Group(entries)]
        while groups:
            group = groups.pop()
            group.entries = _drop_late(group.entries, maybe_applied=group.lost > 0)
            if group.entries:
                groups.extend(reversed(await self._serve_group(group)))

    async def _serve_group(self, group: "_Group") -> list["_Group"]:
        """Try once; what is to be tried again, and in which groups."""
        try:
            await self._decide_and_commit(group)
        except SessionLost:
            # Nothing was written. The next try has a new session, and an empty memory.
            await asyncio.sleep(_SESSION_PAUSE_S)
            return [group.again(refused_whole=True)]
        except JournalConflict as conflict:
            return await self._after_conflict(group, conflict)
        except JournalRefused as refusal:
            return self._after_refusal(group, refusal)
        except JournalBusy as busy:
            return await self._after_lock(group, busy)
        except (OutcomeUnknown, JournalUnavailable) as failure:
            return await self._after_failure(group, failure)
        return []

    async def _after_conflict(self, group: "_Group", conflict: JournalConflict) -> list["_Group"]:
        """The wallets that don't conflict go first, if it is not for the first time."""
        entries, conflicting = group.entries, conflict.wallet_ids
        self._forget(entries, conflicting)
        self.counts["conflicts"] += 1
        conflicts = group.conflicts + 1
        _log.info("version conflict", cause=str(conflict), **_about(entries))
        if conflicts > self._limits.conflict_retries_max:
            _answer_all(entries, _CONFLICTS_UNKNOWN if group.lost else _TOO_MANY_CONFLICTS)
            return []
        await asyncio.sleep(_CONFLICT_PAUSES_S[(conflicts - 1) % len(_CONFLICT_PAUSES_S)])
        again = group.again(refused_whole=True, conflicts=conflicts)
        return again.parted(conflicting) if conflicts >= _APART_AFTER else [again]

    def _after_refusal(self, group: "_Group", refusal: JournalRefused) -> list["_Group"]:
        """One command that the database can't take must not refuse the others with it."""
        self._forget(group.entries)
        _log.error("the journal refused a batch", cause=str(refusal), **_about(group.entries))
        if len(group.entries) == 1:
            _answer_all(group.entries, _REFUSED_UNKNOWN if group.lost else _JOURNAL_REFUSES)
            return []
        return [group.again(entries=[entry]) for entry in group.entries]

    async def _after_lock(self, group: "_Group", busy: JournalBusy) -> list["_Group"]:
        """A wallet whose row is locked must not refuse the others with it, nor hold them up again.

        Nothing was written, and the server is well. Memory is as right as before.
        """
        if group.lost:
            return await self._after_failure(group, busy)
        wallets = {entry.submission.wallet_id for entry in group.entries}
        try:
            locked = await self._journal.locked(wallets)
        except JournalUnavailable:
            locked = frozenset()
        _log.warning("a batch waited too long", locked=sorted(locked), cause=str(busy))
        if not locked:
            _answer_all(group.entries, _JOURNAL_BUSY)
            return []
        until = asyncio.get_running_loop().time() + _LOCKED_S
        self._locked_until.update(dict.fromkeys(locked, until))
        held, *others = reversed(group.parted(locked))
        _answer_all(held.entries, _WALLET_LOCKED)
        return others

    async def _after_failure(self, group: "_Group", failure: Exception) -> list["_Group"]:
        """Decide again, since the commit may have been applied; unless none was sent."""
        self._forget(group.entries)
        self.journal_ready = False
        if isinstance(failure, JournalUnavailable) and not group.lost:
            _answer_all(group.entries, _JOURNAL_DOWN)
            return []
        self.counts["outcomes_unknown"] += not group.lost
        _log.warning("outcome of a commit unknown", cause=str(failure), **_about(group.entries))
        await asyncio.sleep(_RESOLVE_BACKOFF_S[min(group.lost, len(_RESOLVE_BACKOFF_S) - 1)])
        return [group.again(lost=group.lost + 1)]

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

    async def _decide_and_commit(self, group: "_Group") -> None:
        entries = group.entries
        clock = asyncio.get_running_loop().time
        queued_until, taken = clock(), perf_counter()
        submissions = [entry.submission for entry in entries]
        session = await self._enter_session()
        loaded = await self._load(submissions, session, redo=group.redo)
        self._busy_since = clock()

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
            await self._journal.commit(write, session=session)
        committed = perf_counter()
        self.journal_ready = True

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
        self._relay.add_unread(loaded.unpublished)
        self._relay_events(batch)
        self._count(batch, submissions, took_s=clock() - started)
        self.meters.note(entries, times)

    async def _load(self, submissions: list[Submission], session: int, *, redo: bool) -> Loaded:
        missing = what_is_missing(submissions, self._cache, redo=redo)
        if not missing:
            return _NOTHING_LOADED
        loaded = await self._journal.load(missing, session=session)
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
        events: dict[WalletId, tuple[list[Recorded], list[bytes]]] = {}
        for recorded, body in zip(batch.write.recorded, batch.bodies, strict=True):
            of_wallet = events.setdefault(recorded.wallet.id, ([], []))
            of_wallet[0].append(recorded)
            of_wallet[1].append(body)
        for span in batch.write.spans():
            recorded_events, bodies = events[span.wallet_id]
            assert len(recorded_events) == span.last - span.first + 1, "INV-10 a version an event"
            self._relay.add(span, recorded_events, bodies)

    def _count(self, batch: Batch, submissions: list[Submission], *, took_s: float) -> None:
        commands = sum(len(submission.items) for submission in submissions)
        self._s_per_command += _RATE_WEIGHT * (took_s / commands - self._s_per_command)
        self.counts["batches"] += 1
        self.counts["commands"] += commands
        self.counts["events"] += len(batch.write.recorded)
        self.counts["replays"] += batch.replays
        self.refusals.update(str(code) for code in batch.refusals)
        self.largest_batch = max(self.largest_batch, commands)

    def _forget(self, entries: list[Entry], conflicting: frozenset[WalletId] = frozenset()) -> None:
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
                    self._cache.forget(item.command.new_wallet_id)

    # -- how it stands ------------------------------------------------------------------------

    @property
    def mailbox_items(self) -> int:
        return self._mailbox.items

    @property
    def wallets_active(self) -> int:
        return len(self._cache)

    @property
    def activations(self) -> int:
        return self._cache.activations


class _Group:
    """Entries that are decided together, and what became of the tries to do so."""

    __slots__ = ("conflicts", "entries", "lost", "refused_whole")

    def __init__(
        self,
        entries: list[Entry],
        *,
        conflicts: int = 0,
        lost: int = 0,
        refused_whole: bool = False,
    ) -> None:
        self.entries = entries
        self.conflicts = conflicts
        self.lost = lost
        """Commits whose answers never came."""
        self.refused_whole = refused_whole
        """A commit was refused: an earlier delivery may have been applied by somebody else."""

    @property
    def redo(self) -> bool:
        """Whether what the entries create may be in the journal already."""
        return self.refused_whole or self.lost > 0

    def again(
        self,
        *,
        entries: list[Entry] | None = None,
        conflicts: int | None = None,
        lost: int | None = None,
        refused_whole: bool = False,
    ) -> "_Group":
        """The same for another try, but for what is given."""
        return _Group(
            self.entries if entries is None else entries,
            conflicts=self.conflicts if conflicts is None else conflicts,
            lost=self.lost if lost is None else lost,
            refused_whole=self.refused_whole or refused_whole,
        )

    def parted(self, wallet_ids: frozenset[WalletId]) -> list["_Group"]:
        """Entries of other wallets, if there are any, then those of ``wallet_ids``.

        A wallet's entries stay together and in order. The others begin to count conflicts anew.
        """
        of_them = [one for one in self.entries if one.submission.wallet_id in wallet_ids]
        others = [one for one in self.entries if one.submission.wallet_id not in wallet_ids]
        if not others or not of_them:
            return [self]
        return [self.again(entries=others, conflicts=0), self.again(entries=of_them)]


def _about(entries: list[Entry]) -> dict[str, object]:
    """The fields that tell in the log whom something happened to: the first ones, and how many."""
    first = [entry.submission for entry in entries[:_TOLD_MAX]]
    return {
        "entries": len(entries),
        "wallet_id": [submission.wallet_id for submission in first],
        "request_id": [submission.request_id for submission in first],
    }


def _drop_late(entries: list[Entry], *, maybe_applied: bool) -> list[Entry]:
    """Answer what can't be decided in time; return the rest."""
    now = asyncio.get_running_loop().time()
    in_time = [entry for entry in entries if entry.deadline > now]
    if len(in_time) < len(entries):
        failure = _LATE_UNKNOWN if maybe_applied else _LATE
        for entry in entries:
            if entry.deadline <= now:
                entry.answer(Reply(failure=_for(entry, failure)))
    return in_time


def _for(entry: Entry, failure: Failure) -> Failure:
    """``failure`` for ``entry``: a second delivery can't promise that the first did nothing."""
    if entry.submission.attempt > 1 and failure.applied == "no":
        return msgspec.structs.replace(
            failure, applied="unknown", detail=failure.detail.replace(_SURELY_NOT, _MAYBE)
        )
    return failure


def _answer_all(entries: list[Entry], failure: Failure) -> None:
    for entry in entries:
        entry.answer(Reply(failure=_for(entry, failure)))


_NOTHING_LOADED: Final = Loaded()

_SURELY_NOT: Final = "This request applied nothing; it is safe to repeat."
_MAYBE: Final = "It may have been applied; repeating it with the same Idempotency-Key is safe."

_LATE: Final = Failure(
    code=FailureCode.DEADLINE_EXCEEDED,
    detail=f"The deadline passed before the request was decided. {_SURELY_NOT}",
    applied="no",
)
_LATE_UNKNOWN: Final = Failure(
    code=FailureCode.DEADLINE_EXCEEDED,
    detail=f"The deadline passed before the database confirmed the write. {_MAYBE}",
    applied="unknown",
)
_TOO_MANY_CONFLICTS: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"Another writer kept changing this wallet. {_SURELY_NOT}",
    applied="no",
)
_CONFLICTS_UNKNOWN: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"Another writer kept changing this wallet. {_MAYBE}",
    applied="unknown",
)
_JOURNAL_DOWN: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"The database does not answer. {_SURELY_NOT}",
    applied="no",
)
_JOURNAL_BUSY: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"The database took too long, and ended it. {_SURELY_NOT}",
    applied="no",
)
_WALLET_LOCKED: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"This wallet is locked in the database. {_SURELY_NOT}",
    applied="no",
)
_JOURNAL_REFUSES: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"The database can't write now. {_SURELY_NOT}",
    applied="no",
)
_REFUSED_UNKNOWN: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"The database can't write now. {_MAYBE}",
    applied="unknown",
)
_OUTBOX_FULL: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"Too many events wait for the event stream. {_SURELY_NOT}",
    applied="no",
    retry_after_s=5.0,
)
