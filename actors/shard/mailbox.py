"""A shard's queue: bounded, fair between wallets (`FairQueue`), drained whole."""

import asyncio

from actors.fair_queue import FairQueue, Overflow
from actors.rpc.messages import RequestResult
from wallet.commands import CommandRequest


class Countdown:
    """Reached once ``count`` entries are answered."""

    __slots__ = ("_left", "_reached")

    def __init__(self, count: int) -> None:
        self._left = count
        self._reached = asyncio.Event()

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._reached.set()

    async def wait(self) -> None:
        await self._reached.wait()


class QueuedRequest:
    """A submission that waits for its decision, and its result afterwards.

    ``deadline`` and ``queued_at`` are loop times. ``countdown`` is that of the call it came with.
    """

    __slots__ = ("_countdown", "_result", "deadline", "queued_at", "submission")

    def __init__(self, submission: CommandRequest, countdown: Countdown, queued_at: float) -> None:
        self.submission = submission
        self.queued_at = queued_at
        self.deadline = queued_at + submission.timeout_s
        self._countdown = countdown
        self._result: RequestResult | None = None

    @property
    def result(self) -> RequestResult:
        assert self._result is not None, "an entry has a result once it is answered"
        return self._result

    def answer(self, result: RequestResult) -> None:
        assert self._result is None, "a submission is answered once"
        self._result = result
        self._countdown.step()


class Mailbox:
    """Entries by wallet, and a way to wait for the first. Bounds count items (commands)."""

    def __init__(self, *, items_max: int, wallet_items_max: int) -> None:
        self._queue: FairQueue[QueuedRequest] = FairQueue(
            commands_max=items_max, wallet_commands_max=wallet_items_max
        )
        self._has_entries = asyncio.Event()

    @property
    def items(self) -> int:
        return self._queue.commands

    def put(self, entry: QueuedRequest) -> Overflow | None:
        """Queue ``entry``, or say which bound it exceeds. A lone submission always fits."""
        submission = entry.submission
        overflow = self._queue.put(submission.wallet_id, entry, len(submission.items))
        if overflow is None:
            self._has_entries.set()
        return overflow

    async def wait(self) -> None:
        """Return when something is queued."""
        await self._has_entries.wait()

    def drain(self, *, items_max: int, wallet_items_max: int) -> list[QueuedRequest]:
        """Take what is queued, up to ``items_max`` items, at once and without waiting.

        No wallet gets more than ``wallet_items_max`` while others still wait, unless a single
        submission has more; what is left goes behind them. The first submission always fits,
        whatever its size; one that is too large for the room that is left is the first of the
        next drain.
        """
        taken = self._queue.take(capacity=items_max, quota=wallet_items_max, lone_quota=items_max)
        if not self._queue:
            self._has_entries.clear()
        return taken.requests
