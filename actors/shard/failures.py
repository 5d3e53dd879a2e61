"""How a shard answers what it could not decide: failures, and what each of them promises."""

import asyncio
from typing import Final

import msgspec

from actors.rpc.messages import Failure, FailureCode
from actors.shard.mailbox import QueuedRequest

_LOGGED_REQUESTS_MAX: Final = 5
"""Requests of a batch that the log names."""


def log_context(entries: list[QueuedRequest]) -> dict[str, object]:
    """Log fields that name the requests of a batch: the first ones, and how many there are."""
    first = [entry.submission for entry in entries[:_LOGGED_REQUESTS_MAX]]
    return {
        "entries": len(entries),
        "wallet_id": [submission.wallet_id for submission in first],
        "request_id": [submission.request_id for submission in first],
    }


def expire(entries: list[QueuedRequest], *, maybe_applied: bool) -> list[QueuedRequest]:
    """Answer what can't be decided in time; return the rest."""
    now = asyncio.get_running_loop().time()
    in_time = [entry for entry in entries if entry.deadline > now]
    if len(in_time) < len(entries):
        failure = _EXPIRED_UNKNOWN if maybe_applied else _EXPIRED
        for entry in entries:
            if entry.deadline <= now:
                entry.answer(failure_for(entry, failure))
    return in_time


def failure_for(entry: QueuedRequest, failure: Failure) -> Failure:
    """``failure`` for ``entry``: a second delivery can't promise that the first did nothing."""
    if entry.submission.attempt > 1 and failure.applied == "no":
        return msgspec.structs.replace(
            failure, applied="unknown", detail=failure.detail.replace(_NOT_APPLIED, _MAYBE_APPLIED)
        )
    return failure


def fail_all(entries: list[QueuedRequest], failure: Failure) -> None:
    for entry in entries:
        entry.answer(failure_for(entry, failure))


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
OUTBOX_FULL: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail=f"Too many events wait for the event stream. {_NOT_APPLIED}",
    applied="no",
    retry_after_s=5.0,
)
