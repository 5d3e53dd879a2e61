"""Commits a batch, and retries while that is safe and before the deadline.

What if …

- the commit's response is lost: the batch's wallets are dropped from the cache, and the requests
  are decided again after reading what they create. The lost commit may still be applied, so what
  is refused now is refused permanently, in the journal (INV-7).
- another actor owns the wallet too (an upgrade, a zombie): its commit changed the version, ours is
  rejected as a whole (INV-5), the cached wallets are dropped, and the batch is decided again. A
  wallet that conflicts once more is decided separately, so that the others don't wait for it.
- the connection ends: the next one may lead to a server that lacks the last commits (a promoted
  standby). A batch is committed over the connection that its state was read on, and the cache is
  cleared when that connection ends.
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
"""Back-off after a commit of unknown outcome; the last one repeats until the deadline."""

_CONFLICT_BACKOFF_S: Final = (0.0, 0.001, 0.004, 0.002, 0.007, 0.003, 0.010, 0.005)
"""Back-off after a version conflict; starts over after the last one. Uneven, to get out of step
with the other writer: it needs one round trip per commit, a writer that must read first needs two.
"""

_APART_AFTER: Final = 2
"""Conflicts after which the conflicting wallets are decided separately from the others."""

_RECONNECT_BACKOFF_S: Final = 0.01
"""Wait before reconnecting after a session was lost during a batch."""

_LOCKED_S: Final = 1.0
"""How long commands for a wallet with a locked row are rejected immediately."""


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
        """Wallets with locked rows, and the loop time until which their commands are rejected."""

    def is_locked(self, wallet_id: WalletId) -> bool:
        """Whether the wallet's row was found locked within the last second."""
        if not self._locked_until:
            return False
        now = asyncio.get_running_loop().time()
        for other in [one for one, until in self._locked_until.items() if until <= now]:
            del self._locked_until[other]
        return wallet_id in self._locked_until

    async def commit(self, queued_requests: list[QueuedRequest]) -> None:
        """Answer every request; retry while that is safe and before the deadline."""
        groups = [RetryGroup(queued_requests)]
        while groups:
            group = groups.pop()
            group.queued_requests = expire(
                group.queued_requests, maybe_applied=group.unknown_outcomes > 0
            )
            if group.queued_requests:
                groups.extend(reversed(await self._commit_group(group)))

    async def _commit_group(self, group: RetryGroup) -> list[RetryGroup]:
        """One attempt; returns the groups to retry."""
        try:
            await self._committer.decide_and_commit(group)
        except SessionLost:
            # Nothing was written. The next attempt has a new session and an empty cache.
            await asyncio.sleep(_RECONNECT_BACKOFF_S)
            return [group.again(commit_rejected=True)]
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
        """Decide again; from the second conflict on, the wallets that don't conflict first."""
        queued_requests, conflicting = group.queued_requests, conflict.wallet_ids
        self._committer.invalidate(queued_requests, conflicting)
        self._counts["conflicts"] += 1
        conflicts = group.conflicts + 1
        _log.info("version conflict", cause=str(conflict), **log_context(queued_requests))
        if conflicts > self._conflict_retries_max:
            fail_all(
                queued_requests, CONFLICTS_UNKNOWN if group.unknown_outcomes else TOO_MANY_CONFLICTS
            )
            return []
        await asyncio.sleep(_CONFLICT_BACKOFF_S[(conflicts - 1) % len(_CONFLICT_BACKOFF_S)])
        again = group.again(commit_rejected=True, conflicts=conflicts)
        return again.split(conflicting) if conflicts >= _APART_AFTER else [again]

    def _after_refusal(self, group: RetryGroup, refusal: JournalError) -> list[RetryGroup]:
        """Retry one by one: a command that the database rejects must not fail the others."""
        self._committer.invalidate(group.queued_requests)
        _log.error(
            "journal rejected batch", cause=str(refusal), **log_context(group.queued_requests)
        )
        if len(group.queued_requests) == 1:
            fail_all(
                group.queued_requests,
                REFUSED_UNKNOWN if group.unknown_outcomes else JOURNAL_REJECTED,
            )
            return []
        return [group.again(queued_requests=[queued]) for queued in group.queued_requests]

    async def _after_lock(self, group: RetryGroup, busy: JournalBusy) -> list[RetryGroup]:
        """Fail only the wallets with locked rows, and reject their next commands immediately.

        Nothing was written, the server is healthy, and the cache is still valid.
        """
        if group.unknown_outcomes:
            return await self._after_failure(group, busy)
        wallets = {queued.request.wallet_id for queued in group.queued_requests}
        try:
            locked = await self._journal.locked(wallets)
        except JournalUnavailable:
            locked = frozenset()
        _log.warning("batch lock wait timed out", locked=sorted(locked), cause=str(busy))
        if not locked:
            fail_all(group.queued_requests, JOURNAL_BUSY)
            return []
        until = asyncio.get_running_loop().time() + _LOCKED_S
        self._locked_until.update(dict.fromkeys(locked, until))
        held, *others = reversed(group.split(locked))
        fail_all(held.queued_requests, WALLET_LOCKED)
        return others

    async def _after_failure(self, group: RetryGroup, failure: Exception) -> list[RetryGroup]:
        """Decide again, since the commit may have been applied. Fail if none was sent."""
        self._committer.invalidate(group.queued_requests)
        self._stall.journal_ready = False
        if isinstance(failure, JournalUnavailable) and not group.unknown_outcomes:
            fail_all(group.queued_requests, JOURNAL_DOWN)
            return []
        self._counts["outcomes_unknown"] += not group.unknown_outcomes
        _log.warning(
            "commit outcome unknown", cause=str(failure), **log_context(group.queued_requests)
        )
        await asyncio.sleep(
            _RESOLVE_BACKOFF_S[min(group.unknown_outcomes, len(_RESOLVE_BACKOFF_S) - 1)]
        )
        return [group.again(unknown_outcomes=group.unknown_outcomes + 1)]
