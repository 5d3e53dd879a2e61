"""Times in queries: RFC 3339, with an offset."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import BeforeValidator

TIME_PATTERN: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})$"
)

_TIME: Final = re.compile(TIME_PATTERN.removesuffix("$") + r"\Z")
_HINT: Final = 'send a time such as "2026-01-02T03:04:05Z"'


def parse_time(sent: object) -> object:
    """A time in UTC.

    Raises:
        ValueError: it is none. The message says what to send instead.
    """
    if not isinstance(sent, str):
        return sent
    if not _TIME.fullmatch(sent):
        # A plus sign that is not encoded is a space.
        raise ValueError(f"{_HINT}; write + as %2B" if " " in sent else _HINT)
    try:
        return datetime.fromisoformat(sent).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{_HINT}: there is no such time") from None


Time = Annotated[datetime, BeforeValidator(parse_time)]
