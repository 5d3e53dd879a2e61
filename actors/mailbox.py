"""A shard's queue: bounded, fair between wallets (`FairQueue`), drained whole."""

import asyncio
from typing import Final

from actors.fair_queue import FairQueue, Overflow
from actors.protocol import Failure, FailureCode, RequestResult
from wallet.commands import Submission


class Delivery:
    """One call to the shard: it is answered when each of its submissions is."""

    __slots__ = ("_open", "done", "replies")

    def __init__(self, count: int) -> None:
        self.replies: list[RequestResult] = [_NO_REPLY] * count
        self._open = count
        self.done = asyncio.Event()

    def answer(self, index: int, reply: RequestResult) -> None:
        assert self.replies[index] is _NO_REPLY, "a submission is answered once"
        self.replies[index] = reply
        self._open -= 1
        if self._open == 0:
            self.done.set()


_NO_REPLY: Final = Failure(
    code=FailureCode.UNAVAILABLE, detail="Not decided yet.", applied="unknown"
)


class Entry:
    """A submission that waits for its decision. ``deadline`` and ``queued_at`` are loop times."""

    __slots__ = ("_delivery", "_index", "deadline", "queued_at", "submission")

    def __init__(
        self, submission: Submission, delivery: Delivery, index: int, queued_at: float
    ) -> None:
        self.submission = submission
        self.queued_at = queued_at
        self.deadline = queued_at + submission.timeout_s
        self._delivery = delivery
        self._index = index

    def answer(self, reply: RequestResult) -> None:
        self._delivery.answer(self._index, reply)


class Mailbox:
    """Entries by wallet, and a way to wait for the first. Bounds count items (commands)."""

    def __init__(self, *, items_max: int, wallet_items_max: int) -> None:
        self._queue: FairQueue[Entry] = FairQueue(
            commands_max=items_max, wallet_commands_max=wallet_items_max
        )
        self._has_entries = asyncio.Event()

    @property
    def items(self) -> int:
        return self._queue.commands

    def put(self, entry: Entry) -> Overflow | None:
        """Queue ``entry``, or say which bound it exceeds. A lone submission always fits."""
        submission = entry.submission
        overflow = self._queue.put(submission.wallet_id, entry, len(submission.items))
        if overflow is None:
            self._has_entries.set()
        return overflow

    async def wait(self) -> None:
        """Return when something is queued."""
        await self._has_entries.wait()

    def drain(self, *, items_max: int, wallet_items_max: int) -> list[Entry]:
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
