"""A pending request of a dispatcher, and detection of contention between wallets."""

import asyncio
from typing import Final

from actors.rpc.messages import Failure, FailureCode, RequestResult
from wallet.commands import CommandRequest
from wallet.ids import WalletId

_CONTENTION_WINDOW_S: Final = 1.0
"""Window in which another wallet's command counts as contention."""


class PendingRequest:
    """A command request that has no reply yet. ``deadline`` is a loop time."""

    __slots__ = ("attempt", "deadline", "delivered", "reply", "request")

    def __init__(self, request: CommandRequest, deadline: float) -> None:
        self.request = request
        self.deadline = deadline
        self.attempt = 1
        self.delivered = False
        self.reply: asyncio.Future[RequestResult] = asyncio.get_running_loop().create_future()

    @property
    def size(self) -> int:
        """Number of its commands."""
        return len(self.request.items)

    def answer(self, reply: RequestResult) -> None:
        """Set its reply, unless it has one."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def expire(self) -> None:
        """Fail it: the deadline has passed. If it was never delivered, it never will be."""
        self.answer(_EXPIRED_UNKNOWN if self.delivered else _EXPIRED_NOT_APPLIED)

    def give_up(self) -> None:
        """Fail it: no shard can be reached from this process."""
        self.answer(_UNREACHABLE_UNKNOWN if self.delivered else _UNREACHABLE_NOT_APPLIED)

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in the caller, unless it has a reply."""
        if not self.reply.done():
            self.reply.set_exception(error)


class ContentionDetector:
    """Detects whether more than one wallet uses a shard queue."""

    __slots__ = ("_contended_at", "_latest", "_latest_at")

    def __init__(self) -> None:
        self._latest: WalletId | None = None
        self._latest_at = 0.0
        self._contended_at: float | None = None

    def record(self, wallet_id: WalletId, now: float) -> None:
        """A command of this wallet came at the loop time ``now``."""
        # An older command of another wallet is no contention: it does not wait any more.
        if self._latest not in (None, wallet_id) and now - self._latest_at < _CONTENTION_WINDOW_S:
            self._contended_at = now
        self._latest, self._latest_at = wallet_id, now

    def is_contended(self, now: float) -> bool:
        """Whether commands of two wallets arrived within the last second."""
        return self._contended_at is not None and now - self._contended_at < _CONTENTION_WINDOW_S


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
