"""A shard's queue: bounded, fair between wallets, drained whole.

A wallet's entries stay in order. Between wallets it is round robin: as long as others wait, a
flooded wallet gets no more than its share of a batch, and never more than its share of the
queue.
"""

import asyncio
from collections import OrderedDict, deque
from enum import Enum, auto

from actors.protocol import Reply
from wallet.commands import Submission
from wallet.ids import WalletId


class Delivery:
    """One call to the shard: it is answered when each of its submissions is."""

    __slots__ = ("_open", "done", "replies")

    def __init__(self, count: int) -> None:
        self.replies: list[Reply] = [_NO_REPLY] * count
        self._open = count
        self.done = asyncio.Event()

    def answer(self, index: int, reply: Reply) -> None:
        assert self.replies[index] is _NO_REPLY, "a submission is answered once"
        self.replies[index] = reply
        self._open -= 1
        if self._open == 0:
            self.done.set()


_NO_REPLY = Reply()


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

    def answer(self, reply: Reply) -> None:
        self._delivery.answer(self._index, reply)


class Admission(Enum):
    """Whether the mailbox took an entry."""

    TAKEN = auto()
    MAILBOX_FULL = auto()
    WALLET_FULL = auto()


class Mailbox:
    """Entries by wallet. Bounds count items (commands), not submissions."""

    def __init__(self, *, items_max: int, wallet_items_max: int) -> None:
        self._items_max = items_max
        self._wallet_items_max = wallet_items_max
        self._queues: OrderedDict[WalletId, deque[Entry]] = OrderedDict()
        self._wallet_items: dict[WalletId, int] = {}
        self._waiting = asyncio.Event()
        self.items = 0

    def put(self, entry: Entry) -> Admission:
        """Queue ``entry``, or say what is full. A lone submission always fits."""
        wallet_id = entry.submission.wallet_id
        size = len(entry.submission.items)
        wallet_items = self._wallet_items.get(wallet_id, 0)
        if self.items and self.items + size > self._items_max:
            return Admission.MAILBOX_FULL
        if wallet_items and wallet_items + size > self._wallet_items_max:
            return Admission.WALLET_FULL
        queue = self._queues.get(wallet_id)
        if queue is None:
            queue = self._queues[wallet_id] = deque()
        queue.append(entry)
        self._wallet_items[wallet_id] = wallet_items + size
        self.items += size
        self._waiting.set()
        return Admission.TAKEN

    async def wait(self) -> None:
        """Return when something is queued."""
        await self._waiting.wait()

    def drain(self, *, items_max: int, wallet_items_max: int) -> list[Entry]:
        """Take what is queued, up to ``items_max`` items, at once and without waiting.

        No wallet gets more than ``wallet_items_max`` while others still wait; what is over
        goes behind them. The first submission always fits, whatever its size; one that is too
        large for the room that is left is the first of the next drain.
        """
        taken: list[Entry] = []
        room = items_max
        for _ in range(len(self._queues)):
            wallet_id, queue = self._queues.popitem(last=False)
            share = min(room, wallet_items_max) if self._queues else room
            used = self._take(queue, share, taken)
            room -= used
            self._settle(wallet_id, queue, used)
            if not used:
                self._queues.move_to_end(wallet_id, last=False)
                break
            if room <= 0:
                break
        if not self._queues:
            self._waiting.clear()
        return taken

    @staticmethod
    def _take(queue: deque[Entry], share: int, taken: list[Entry]) -> int:
        used = 0
        while queue:
            size = len(queue[0].submission.items)
            if used + size > share and (taken or used):
                break
            taken.append(queue.popleft())
            used += size
        return used

    def _settle(self, wallet_id: WalletId, queue: deque[Entry], used: int) -> None:
        self.items -= used
        if queue:
            self._queues[wallet_id] = queue
            self._wallet_items[wallet_id] -= used
        else:
            del self._wallet_items[wallet_id]
