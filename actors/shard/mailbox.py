"""A shard's queue: bounded, and fair between wallets (`FairQueue`)."""

import asyncio

from actors.fair_queue import FairQueue, Overflow
from actors.rpc.messages import RequestResult
from wallet.commands import CommandRequest


class Countdown:
    """Reached once ``count`` requests are answered."""

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
    """A command request that waits for its decision, and later its result.

    ``deadline`` and ``queued_at`` are loop times. ``countdown`` belongs to the request's call.
    """

    __slots__ = ("_countdown", "_result", "deadline", "queued_at", "request")

    def __init__(self, request: CommandRequest, countdown: Countdown, queued_at: float) -> None:
        self.request = request
        self.queued_at = queued_at
        self.deadline = queued_at + request.timeout_s
        self._countdown = countdown
        self._result: RequestResult | None = None

    @property
    def result(self) -> RequestResult:
        assert self._result is not None, "a queued request has a result once it is answered"
        return self._result

    def answer(self, result: RequestResult) -> None:
        assert self._result is None, "a request is answered once"
        self._result = result
        self._countdown.step()


class Mailbox:
    """Queued requests by wallet; `wait` returns when there is one. Bounds count commands."""

    def __init__(self, *, items_max: int, wallet_items_max: int) -> None:
        self._queue: FairQueue[QueuedRequest] = FairQueue(
            commands_max=items_max, wallet_commands_max=wallet_items_max
        )
        self._has_requests = asyncio.Event()

    @property
    def items(self) -> int:
        return self._queue.commands

    def put(self, queued: QueuedRequest) -> Overflow | None:
        """Queue ``queued``, or return the bound that it exceeds. A lone request always fits."""
        request = queued.request
        overflow = self._queue.put(request.wallet_id, queued, len(request.items))
        if overflow is None:
            self._has_requests.set()
        return overflow

    async def wait(self) -> None:
        """Return when something is queued."""
        await self._has_requests.wait()

    def drain(self, *, items_max: int, wallet_items_max: int) -> list[QueuedRequest]:
        """Remove and return up to ``items_max`` queued commands, without waiting.

        No wallet gets more than ``wallet_items_max`` while other wallets wait, unless a single
        request has more; its remaining requests go behind theirs. The first request always fits,
        whatever its size. One that is too large for the remaining capacity is the first of the
        next drain.
        """
        taken = self._queue.take(capacity=items_max, quota=wallet_items_max, lone_quota=items_max)
        if not self._queue:
            self._has_requests.clear()
        return taken.requests
