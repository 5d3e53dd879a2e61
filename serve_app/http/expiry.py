"""When a pending transfer expires, as a request says it: a time, or a number of seconds."""

from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from wallet.commands import RequestedExpiry

EXPIRES_AT_HINT: Final = (
    "send a time in RFC 3339 with an offset from UTC, such as 2026-03-01T12:00:00Z"
)


class ExpiryError(ValueError):
    """Fields that don't go together, or no time. ``field``: its name."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def requested_expiry(
    *,
    status: str,
    expires_at: str | None,
    expires_in_s: int | None,
    on_expiry: Literal["fail", "complete"] | None,
) -> RequestedExpiry | None:
    """What a new transfer with these fields asks for; None: it never expires.

    Raises:
        ExpiryError: a field would be ignored, or says no time.
    """
    if expires_at is None and expires_in_s is None:
        if on_expiry is not None:
            raise ExpiryError("on_expiry", "send expires_at or expires_in_s, too")
        return None
    field = "expires_in_s" if expires_at is None else "expires_at"
    if status != "pending":
        raise ExpiryError(field, "only a pending transfer expires: leave it out, or status")
    if expires_at is not None and expires_in_s is not None:
        raise ExpiryError("expires_in_s", "send expires_at or expires_in_s, not both")
    at = None if expires_at is None else parse_timestamp(expires_at)
    return RequestedExpiry(at=at, after_s=expires_in_s, action=on_expiry or "fail")


def parse_timestamp(text: str) -> datetime:
    """A time of RFC 3339 in UTC, to the microsecond.

    Raises:
        ExpiryError: it is none, or has no offset.
    """
    try:
        moment = msgspec.convert(text, datetime)
        if moment.tzinfo is None:
            raise ExpiryError("expires_at", EXPIRES_AT_HINT)
        return moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise ExpiryError("expires_at", EXPIRES_AT_HINT) from error
