"""When a pending transfer expires: the time that was asked for, within bounds.

The time is the shard's, at which it decides the command: never the client's.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from wallet.commands import RequestedExpiry
from wallet.refusals import Refusal, RefusalCode
from wallet.state import Expiry, OnExpiry


class ExpiryBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How far ahead a transfer may expire, both ends included."""

    least: timedelta
    most: timedelta


ANY_EXPIRY: Final = ExpiryBounds(least=timedelta.min, most=timedelta.max)


def resolve_expiry(
    requested: RequestedExpiry, *, now: datetime, bounds: ExpiryBounds
) -> Expiry | Refusal:
    """The time that was ``requested``, in UTC.

    Out of bounds is a refusal that stays: a later delivery of the command must not be decided
    another way than the first one.
    """
    if requested.at is not None:
        at, pointer = requested.at.astimezone(UTC), "/expires_at"
    else:
        assert requested.after_s is not None, "an expiry has a time or a duration"
        at, pointer = now + timedelta(seconds=requested.after_s), "/expires_in_s"
    if not bounds.least <= at - now <= bounds.most:
        return _out_of_range(at, now, bounds, pointer)
    return Expiry(at, OnExpiry(requested.action))


def _out_of_range(at: datetime, now: datetime, bounds: ExpiryBounds, pointer: str) -> Refusal:
    earliest, latest = rfc3339(now + bounds.least), rfc3339(now + bounds.most)
    return Refusal(
        code=RefusalCode.EXPIRY_OUT_OF_RANGE,
        detail=f"A transfer may expire from {earliest} to {latest}, by the service's clock; "
        f"{rfc3339(at)} was asked for.",
        pointer=pointer,
    )


def rfc3339(moment: datetime | None) -> str:
    """A time in UTC, with microseconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"
