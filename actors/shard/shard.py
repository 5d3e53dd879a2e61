"""A shard: the single writer of the wallets that the ring assigns to it.

Theory of operation. One task takes all queued requests (`Mailbox.drain`, no linger), reads what
the cache lacks, decides every request in order (`BatchDecider`, pure), writes everything in one
transaction, and only then updates the cache and replies (`BatchCommitter`). During that transaction
the next batch queues up: the slower the disk, the larger the batches. This is group commit.

What if …

- the process dies before the commit: nothing was applied; the caller delivers to the successor.
- it dies after the commit: the successor finds the transfer id or idempotency key and replays it.
- the commit fails, or its response is lost: see `RetryingCommitter`.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from actors.fair_queue import Overflow
from actors.journal.expiry_ports import Expiries
from actors.journal.ports import Journal
from actors.rpc.messages import Failure, FailureCode, RequestResult
from actors.shard.batch_committer import BatchCommitter, EventRelay, History
from actors.shard.cache import WalletCache
from actors.shard.counts import ShardCounts
from actors.shard.expiry_sweep import EXPIRY_BACKLOG_MAX, ExpirySweep, ShardUse
from actors.shard.failures import JOURNAL_DOWN, OUTBOX_FULL, WALLET_LOCKED, fail_all, failure_for
from actors.shard.mailbox import Countdown, Mailbox, QueuedRequest
from actors.shard.retrying_committer import RetryingCommitter
from actors.shard.stall_detector import StallDetector
from wallet.commands import CommandRequest
from wallet.expiry_rules import ExpiryBounds
from wallet.slots import ALL_SLOTS, SlotRange

_STALL_CHECK_INTERVAL_S: Final = 0.25
"""How often a shard checks whether its database still answers."""


class ShardLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one shard; see the settings of the same names for their reasons."""

    mailbox_commands_max: int
    mailbox_wallet_commands_max: int
    batch_commands_max: int
    batch_wallet_commands_max: int
    conflict_retries_max: int
    wallets_cached_max: int
    transfers_cached_max: int
    outbox_events_max: int
    database_stall_timeout_s: float
    transfer_expiry_min_s: float = 1.0
    transfer_expiry_max_s: float = 31_622_400.0


class Shard:
    """Decides and writes. ``run`` is its only task; everything else is called on its loop."""

    def __init__(
        self,
        *,
        journal: Journal,
        relay: EventRelay,
        limits: ShardLimits,
        now: Callable[[], datetime],
        history: History | None = None,
        expiries: Expiries | None = None,
        slots: Sequence[SlotRange] = ALL_SLOTS,
    ) -> None:
        """``expiries``: where this shard finds what expires in its ``slots``; None: nowhere."""
        self._relay = relay
        self._limits = limits
        self._mailbox = Mailbox(
            items_max=limits.mailbox_commands_max,
            wallet_items_max=limits.mailbox_wallet_commands_max,
        )
        self._cache = WalletCache(
            wallets_max=limits.wallets_cached_max, transfers_max=limits.transfers_cached_max
        )
        self._counts = ShardCounts()
        self._stall = StallDetector(limits.database_stall_timeout_s)
        committer = BatchCommitter(
            journal=journal,
            relay=relay,
            cache=self._cache,
            counts=self._counts,
            stall=self._stall,
            now=now,
            history=history,
            expiry_bounds=ExpiryBounds(
                least=timedelta(seconds=limits.transfer_expiry_min_s),
                most=timedelta(seconds=limits.transfer_expiry_max_s),
            ),
            on_expiring=self._note_expiry,
        )
        self._committer = RetryingCommitter(
            committer,
            journal=journal,
            counts=self._counts,
            stall=self._stall,
            conflict_retries_max=limits.conflict_retries_max,
        )
        self.counts = self._counts.counts
        self.refusals = self._counts.refusals
        self._batch_committer = committer
        self.timings = committer.timings
        self.expiry: ExpirySweep | None = None
        if expiries is not None:
            self.expiry = ExpirySweep(
                expiries,
                ShardUse(
                    submit=self.submit,
                    commands=lambda: self.counts["commands"],
                    queued=lambda: self._mailbox.items,
                    backlog=lambda: relay.backlog,
                ),
                now=now,
                slots=slots,
                backlog_max=min(EXPIRY_BACKLOG_MAX, limits.outbox_events_max // 4),
            )

    def _note_expiry(self, at: datetime) -> None:
        if self.expiry is not None:
            self.expiry.note(at)

    # -- accepting requests -----------------------------------------------------------------

    async def submit(self, requests: list[CommandRequest]) -> list[RequestResult]:
        """Queue ``requests`` in order and return their replies, in the same order.

        What doesn't fit is rejected immediately, before anything is written.
        """
        answered = Countdown(len(requests))
        queued_at = asyncio.get_running_loop().time()
        queued_requests = [QueuedRequest(request, answered, queued_at) for request in requests]
        for queued in queued_requests:
            failure = self._admit(queued)
            if failure is not None:
                queued.answer(failure)
        await answered.wait()
        return [queued.result for queued in queued_requests]

    def _admit(self, queued: QueuedRequest) -> Failure | None:
        if self._relay.backlog >= self._limits.outbox_events_max:
            return failure_for(queued, OUTBOX_FULL)
        if self._stall.is_stalled():
            return failure_for(queued, JOURNAL_DOWN)
        if self._committer.is_locked(queued.request.wallet_id):
            return failure_for(queued, WALLET_LOCKED)
        overflow = self._mailbox.put(queued)
        if overflow is None:
            return None
        self.counts["overloaded"] += 1
        if queued.request.attempt > 1:
            return failure_for(queued, JOURNAL_DOWN)
        what = "shard's" if overflow is Overflow.QUEUE else "wallet's"
        return Failure(
            code=FailureCode.OVERLOADED,
            detail=f"The {what} queue is full. This request applied nothing; try again later.",
            applied="no",
            retry_after_s=self._drain_estimate_s(),
        )

    def _drain_estimate_s(self) -> float:
        return self._mailbox.items * self._counts.s_per_command

    async def enter_session(self) -> None:
        """Use the journal's current session also without a request.

        Raises:
            JournalUnavailable, SessionLost: there is none that may be used now.
        """
        await self._batch_committer.enter_session()

    # -- tasks --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit batches from the mailbox until cancelled."""
        while True:
            await self._mailbox.wait()
            queued_requests = self._mailbox.drain(
                items_max=self._limits.batch_commands_max,
                wallet_items_max=self._limits.batch_wallet_commands_max,
            )
            self._stall.restart()
            await self._committer.commit(queued_requests)
            self._stall.stop()

    async def reject_while_stalled(self) -> None:
        """Reject what waits behind a batch that the database doesn't answer, until cancelled.

        The batch itself continues: its outcome must be known. Queued requests are certainly not
        applied, and their callers get that answer within about a second, not at their deadlines.
        """
        while True:
            await asyncio.sleep(_STALL_CHECK_INTERVAL_S)
            if self._stall.is_stalled():
                waiting = self._mailbox.drain(
                    items_max=self._limits.mailbox_commands_max,
                    wallet_items_max=self._limits.mailbox_commands_max,
                )
                fail_all(waiting, JOURNAL_DOWN)

    # -- state --------------------------------------------------------------------------------

    @property
    def journal_ready(self) -> bool:
        return self._stall.journal_ready

    @property
    def batch_commands_max_seen(self) -> int:
        return self._counts.batch_commands_max_seen

    @property
    def mailbox_items(self) -> int:
        return self._mailbox.items

    @property
    def wallets_active(self) -> int:
        return len(self._cache)

    @property
    def activations(self) -> int:
        return self._cache.activations
