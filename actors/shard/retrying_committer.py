"""Committing a batch whatever the journal answers: again while that is safe and in time.

What if …

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
from typing import Final

import structlog

from actors.journal.ports import (
    Journal,
    JournalBusy,
    JournalConflict,
    JournalError,
    JournalUnavailable,
    OutcomeUnknown,
    SessionLost,
)
from actors.shard.batch_committer import BatchCommitter
from actors.shard.counts import ShardCounts
from actors.shard.failures import (
    CONFLICTS_UNKNOWN,
    JOURNAL_BUSY,
    JOURNAL_DOWN,
    JOURNAL_REJECTED,
    REFUSED_UNKNOWN,
    TOO_MANY_CONFLICTS,
    WALLET_LOCKED,
    expire,
    fail_all,
    log_context,
)
from actors.shard.mailbox import QueuedRequest
from actors.shard.retry_group import RetryGroup
from actors.shard.stall_detector import StallDetector
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_RESOLVE_BACKOFF_S: Final = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Waits before asking again what became of a commit; the last one repeats until the deadline."""

_CONFLICT_BACKOFF_S: Final = (0.0, 0.001, 0.004, 0.002, 0.007, 0.003, 0.010, 0.005)
"""Waits before deciding again after a conflict; they begin anew after the last one. Uneven, so as
not to keep step with the other writer: it needs one round trip for each of its commits, and who
must read first needs two."""

_APART_AFTER: Final = 2
"""Conflicts after which the wallets that conflict are decided apart from the others."""

_RECONNECT_BACKOFF_S: Final = 0.01
"""Wait before connecting again after a session was lost in the middle of a batch."""

_LOCKED_S: Final = 1.0
"""For how long a wallet whose row was found locked is refused at once."""


class RetryingCommitter:
    """Commits batches and answers every request in them."""

    def __init__(
        self,
        committer: BatchCommitter,
        *,
        journal: Journal,
        counts: ShardCounts,
        stall: StallDetector,
        conflict_retries_max: int,
    ) -> None:
        self._committer = committer
        self._journal = journal
        self._counts = counts.counts
        self._stall = stall
        self._conflict_retries_max = conflict_retries_max
        self._locked_until: dict[WalletId, float] = {}
        """Loop times until which wallets are refused whose rows are locked."""

    def is_locked(self, wallet_id: WalletId) -> bool:
        """Whether the wallet's row was found locked a moment ago."""
        if not self._locked_until:
            return False
        now = asyncio.get_running_loop().time()
        for other in [one for one, until in self._locked_until.items() if until <= now]:
            del self._locked_until[other]
        return wallet_id in self._locked_until

    async def commit(self, entries: list[QueuedRequest]) -> None:
        """Answer every entry, trying again while that is safe and in time."""
        groups = [RetryGroup(entries)]
        while groups:
            group = groups.pop()
            group.entries = expire(group.entries, maybe_applied=group.unknown_outcomes > 0)
            if group.entries:
                groups.extend(reversed(await self._commit_group(group)))

    async def _commit_group(self, group: RetryGroup) -> list[RetryGroup]:
        """Try once; what is to be tried again, and in which groups."""
        try:
            await self._committer.decide_and_commit(group)
        except SessionLost:
            # Nothing was written. The next try has a new session, and an empty memory.
            await asyncio.sleep(_RECONNECT_BACKOFF_S)
            return [group.again(refused_whole=True)]
        except JournalConflict as conflict:
            return await self._after_conflict(group, conflict)
        except JournalError as refusal:
            return self._after_refusal(group, refusal)
        except JournalBusy as busy:
            return await self._after_lock(group, busy)
        except (OutcomeUnknown, JournalUnavailable) as failure:
            return await self._after_failure(group, failure)
        return []

    async def _after_conflict(
        self, group: RetryGroup, conflict: JournalConflict
    ) -> list[RetryGroup]:
        """The wallets that don't conflict go first, if it is not for the first time."""
        entries, conflicting = group.entries, conflict.wallet_ids
        self._committer.invalidate(entries, conflicting)
        self._counts["conflicts"] += 1
        conflicts = group.conflicts + 1
        _log.info("version conflict", cause=str(conflict), **log_context(entries))
        if conflicts > self._conflict_retries_max:
            fail_all(entries, CONFLICTS_UNKNOWN if group.unknown_outcomes else TOO_MANY_CONFLICTS)
            return []
        await asyncio.sleep(_CONFLICT_BACKOFF_S[(conflicts - 1) % len(_CONFLICT_BACKOFF_S)])
        again = group.again(refused_whole=True, conflicts=conflicts)
        return again.split(conflicting) if conflicts >= _APART_AFTER else [again]

    def _after_refusal(self, group: RetryGroup, refusal: JournalError) -> list[RetryGroup]:
        """One command that the database can't take must not refuse the others with it."""
        self._committer.invalidate(group.entries)
        _log.error("journal rejected batch", cause=str(refusal), **log_context(group.entries))
        if len(group.entries) == 1:
            fail_all(group.entries, REFUSED_UNKNOWN if group.unknown_outcomes else JOURNAL_REJECTED)
            return []
        return [group.again(entries=[entry]) for entry in group.entries]

    async def _after_lock(self, group: RetryGroup, busy: JournalBusy) -> list[RetryGroup]:
        """A wallet whose row is locked must not refuse the others with it, nor hold them up again.

        Nothing was written, and the server is well. Memory is as right as before.
        """
        if group.unknown_outcomes:
            return await self._after_failure(group, busy)
        wallets = {entry.submission.wallet_id for entry in group.entries}
        try:
            locked = await self._journal.locked(wallets)
        except JournalUnavailable:
            locked = frozenset()
        _log.warning("batch lock wait timed out", locked=sorted(locked), cause=str(busy))
        if not locked:
            fail_all(group.entries, JOURNAL_BUSY)
            return []
        until = asyncio.get_running_loop().time() + _LOCKED_S
        self._locked_until.update(dict.fromkeys(locked, until))
        held, *others = reversed(group.split(locked))
        fail_all(held.entries, WALLET_LOCKED)
        return others

    async def _after_failure(self, group: RetryGroup, failure: Exception) -> list[RetryGroup]:
        """Decide again, since the commit may have been applied; unless none was sent."""
        self._committer.invalidate(group.entries)
        self._stall.journal_ready = False
        if isinstance(failure, JournalUnavailable) and not group.unknown_outcomes:
            fail_all(group.entries, JOURNAL_DOWN)
            return []
        self._counts["outcomes_unknown"] += not group.unknown_outcomes
        _log.warning("commit outcome unknown", cause=str(failure), **log_context(group.entries))
        await asyncio.sleep(
            _RESOLVE_BACKOFF_S[min(group.unknown_outcomes, len(_RESOLVE_BACKOFF_S) - 1)]
        )
        return [group.again(lost=group.unknown_outcomes + 1)]
