"""Pending requests of a dispatcher, and detection of contention between wallets."""

import asyncio
from typing import Final

from actors.rpc.messages import Failure, FailureCode, RequestResult
from wallet.commands import CommandRequest
from wallet.ids import WalletId

_CONTENTION_WINDOW_S: Final = 1.0
"""Window in which another wallet's command counts as contention."""

_Arrival = tuple[WalletId | None, float]
"""A wallet, and when its command came."""

_NOBODY: Final[_Arrival] = (None, float("-inf"))


class Caller:
    """Waits for the replies of ``requests`` requests."""

    __slots__ = ("_left", "replied")

    def __init__(self, requests: int) -> None:
        self._left = requests
        self.replied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once all have replies. Cancelled: the caller is gone."""

    def count_reply(self) -> bool:
        """Whether this was the last reply that it waits for."""
        self._left -= 1
        if self._left or self.replied.done():
            return False
        self.replied.set_result(None)
        return True


class PendingRequest:
    """A command request that has no reply yet. ``deadline`` is a loop time."""

    __slots__ = ("_caller", "_reply", "attempt", "deadline", "delivered", "request")

    def __init__(self, request: CommandRequest, deadline: float, caller: Caller) -> None:
        self.request = request
        self.deadline = deadline
        self.attempt = 1
        self.delivered = False
        self._caller = caller
        self._reply: RequestResult | None = None

    @property
    def size(self) -> int:
        """Number of its commands."""
        return len(self.request.items)

    @property
    def reply(self) -> RequestResult:
        assert self._reply is not None, "INV-6 each request has one reply"
        return self._reply

    @property
    def is_over(self) -> bool:
        """It has a reply, or nobody waits for one."""
        return self._reply is not None or self._caller.replied.done()

    def answer(self, reply: RequestResult) -> bool:
        """Set its reply, unless it has one. Whether its caller has all replies now."""
        if self._reply is not None:
            return False
        self._reply = reply
        return self._caller.count_reply()

    def expire(self) -> None:
        """Fail it: the deadline has passed. If it was never delivered, it never will be."""
        self.answer(_EXPIRED_UNKNOWN if self.delivered else _EXPIRED_NOT_APPLIED)

    def give_up(self) -> None:
        """Fail it: no shard can be reached from this process."""
        self.answer(_UNREACHABLE_UNKNOWN if self.delivered else _UNREACHABLE_NOT_APPLIED)

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in the caller, unless it has a reply."""
        if not self.is_over:
            self._caller.replied.set_exception(error)


class ContentionDetector:
    """Detects whether a wallet that is not overloaded shares a shard queue with others.

    Overloaded wallets alone need no protection from each other: the queue is fair, and they gain
    more from large batches. All times are loop times.
    """

    __slots__ = ("_latest", "_other", "_overloaded")

    def __init__(self) -> None:
        self._latest: _Arrival = _NOBODY
        """The last wallet that came and was not overloaded."""
        self._other: _Arrival = _NOBODY
        """The last one before, of another wallet."""
        self._overloaded: dict[WalletId, float] = {}
        """When a call was last full of a wallet's commands."""

    def record(self, wallet_id: WalletId, now: float) -> None:
        """A command of this wallet came ``now``."""
        if wallet_id in self._overloaded and self._is_recent(self._overloaded[wallet_id], now):
            return
        if wallet_id != self._latest[0]:
            self._other = self._latest
        self._latest = (wallet_id, now)

    def record_overload(self, wallet_id: WalletId, now: float) -> None:
        """As many of this wallet's commands as it may have under contention are sent ``now``."""
        for other in [one for one, at in self._overloaded.items() if not self._is_recent(at, now)]:
            del self._overloaded[other]
        self._overloaded[wallet_id] = now
        if wallet_id == self._latest[0]:
            self._latest, self._other = self._other, _NOBODY
        elif wallet_id == self._other[0]:
            self._other = _NOBODY

    def is_contended(self, now: float) -> bool:
        """Whether, within the last second, a wallet came that was not overloaded, and another."""
        return self._is_recent(self._latest[1], now) and (
            self._is_recent(self._other[1], now)
            or any(self._is_recent(at, now) for at in self._overloaded.values())
        )

    def _is_recent(self, at: float, now: float) -> bool:
        return now - at < _CONTENTION_WINDOW_S


_EXPIRED_NOT_APPLIED: Final = Failure(
    code=FailureCode.DEADLINE_EXCEEDED,
    detail="The deadline passed before the request reached its shard. This request applied "
    "nothing; it is safe to repeat.",
    applied="no",
)
_UNREACHABLE_NOT_APPLIED: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail="No shard can be reached from this node. This request applied nothing; it is safe to "
    "repeat.",
    applied="no",
)
_UNREACHABLE_UNKNOWN: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail="No shard can be reached from this node any more. It may have been applied; repeating "
    "it with the same Idempotency-Key is safe.",
    applied="unknown",
)
_EXPIRED_UNKNOWN: Final = Failure(
    code=FailureCode.DEADLINE_EXCEEDED,
    detail="No answer came before the deadline. It may have been applied; repeating it with "
    "the same Idempotency-Key is safe.",
    applied="unknown",
)
