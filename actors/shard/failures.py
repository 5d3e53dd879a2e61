"""Failure responses of a shard, and whether each guarantees that nothing was applied."""

import asyncio
from typing import Final

import msgspec

from actors.rpc.messages import Failure, FailureCode
from actors.shard.mailbox import QueuedRequest

_LOGGED_REQUESTS_MAX: Final = 5
"""Most requests of a batch named in a log line."""


def log_context(queued_requests: list[QueuedRequest]) -> dict[str, object]:
    """Log fields for a batch: its first requests, and how many it has."""
    first = [queued.request for queued in queued_requests[:_LOGGED_REQUESTS_MAX]]
    return {
        "entries": len(queued_requests),
        "wallet_id": [request.wallet_id for request in first],
        "request_id": [request.request_id for request in first],
    }


def expire(queued_requests: list[QueuedRequest], *, maybe_applied: bool) -> list[QueuedRequest]:
    """Answer requests whose deadline has passed; return the others."""
    now = asyncio.get_running_loop().time()
    in_time = [queued for queued in queued_requests if queued.deadline > now]
    if len(in_time) < len(queued_requests):
        failure = _EXPIRED_UNKNOWN if maybe_applied else _EXPIRED
        for queued in queued_requests:
            if queued.deadline <= now:
                queued.answer(failure_for(queued, failure))
    return in_time


def failure_for(queued: QueuedRequest, failure: Failure) -> Failure:
    """``failure`` for ``entry``: a second delivery can't promise that the first did nothing."""
    if queued.request.attempt > 1 and failure.applied == "no":
        return msgspec.structs.replace(
            failure, applied="unknown", detail=failure.detail.replace(_NOT_APPLIED, _MAYBE_APPLIED)
        )
    return failure


def fail_all(queued_requests: list[QueuedRequest], failure: Failure) -> None:
    for queued in queued_requests:
        queued.answer(failure_for(queued, failure))


_NOT_APPLIED: Final = "This request applied nothing; it is safe to repeat."
_MAYBE_APPLIED: Final = (
    "It may have been applied; repeating it with the same Idempotency-Key is safe."
)

_EXPIRED: Final = Failure(
    code=FailureCode.DEADLINE_EXCEEDED,
    detail=f"The deadline passed before the request was decided. {_NOT_APPLIED}",
    applied="no",
)
_EXPIRED_UNKNOWN: Final = Failure(
    code=FailureCode.DEADLINE_EXCEEDED,
    detail=f"The deadline passed before the database confirmed the write. {_MAYBE_APPLIED}",
    applied="unknown",
)
TOO_MANY_CONFLICTS: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"Another writer kept changing this wallet. {_NOT_APPLIED}",
    applied="no",
)
CONFLICTS_UNKNOWN: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"Another writer kept changing this wallet. {_MAYBE_APPLIED}",
    applied="unknown",
)
JOURNAL_DOWN: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"The database does not answer. {_NOT_APPLIED}",
    applied="no",
)
JOURNAL_BUSY: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"The database took too long, and ended it. {_NOT_APPLIED}",
    applied="no",
)
WALLET_LOCKED: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"This wallet is locked in the database. {_NOT_APPLIED}",
    applied="no",
)
JOURNAL_REJECTED: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"The database can't write now. {_NOT_APPLIED}",
    applied="no",
)
REFUSED_UNKNOWN: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"The database can't write now. {_MAYBE_APPLIED}",
    applied="unknown",
)
HISTORY_FORKED: Final = Failure(
    code=FailureCode.HISTORY_FORKED,
    detail="The database has lost some of this wallet's latest writes. Until the operator has "
    f"decided what becomes of them, the wallet can't be written. {_NOT_APPLIED}",
    applied="no",
    retry_after_s=10.0,
)
FORKED_UNKNOWN: Final = Failure(
    code=FailureCode.HISTORY_FORKED,
    detail="The database has lost some of this wallet's latest writes. Until the operator has "
    f"decided what becomes of them, the wallet can't be written. {_MAYBE_APPLIED}",
    applied="unknown",
    retry_after_s=10.0,
)
OUTBOX_FULL: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"Too many events wait for the event stream. {_NOT_APPLIED}",
    applied="no",
    retry_after_s=5.0,
)
