"""Content negotiation: the media type that a client prefers (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence
from typing import Final

_UNREADABLE: Final = 0.0


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """The one of ``offered`` that ``accept`` prefers, the first of equals; None: it takes none.

    An empty header accepts everything.
    """
    if not accept.strip():
        return offered[0]
    ranges = [_range(part) for part in accept.split(",")]
    qualities = [_quality(media_type, ranges) for media_type in offered]
    best = max(qualities)
    return offered[qualities.index(best)] if best > 0 else None


def _range(part: str) -> tuple[str, float]:
    """A media range and its quality."""
    name, *parameters = (one.strip() for one in part.lower().split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, float(value)
            except ValueError:
                return name, _UNREADABLE
    return name, 1.0


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """By the most specific range that has it."""
    for range_ in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        found = [quality for name, quality in ranges if name == range_]
        if found:
            return max(found)
    return 0.0
