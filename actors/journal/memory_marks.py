"""The marks of acknowledged sequences in memory: the table ``stream_marks``."""

import math
from collections.abc import Callable
from copy import copy
from typing import Final

import msgspec

from actors.journal.ports import Acknowledged, FilledStream, StreamMark

AGE_SHARE: Final = 0.9
"""As in Postgres: a mark counts for this share of the time that the stream keeps its message."""

_RECENT_S: Final = 10.0
_SPACING_S: Final = 60.0


class _Mark(msgspec.Struct):
    incarnation: str
    sequence: int
    acknowledged_at: float
    since: float
    max_age_s: float = math.inf


class StreamMarks:
    """``clock``: seconds, the same that ages the outbox's rows."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: dict[tuple[str, int], _Mark] = {}

    def copy(self) -> "StreamMarks":
        copied = StreamMarks(self._clock)
        copied._marks = {key: copy(mark) for key, mark in self._marks.items()}
        return copied

    def __repr__(self) -> str:
        return f"StreamMarks({self._marks!r})"

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, mark: StreamMark, since: float) -> None:
        """``since``: time of the oldest outbox row that is deleted with the mark."""
        for sequence in mark.sequences:
            made = _Mark(mark.incarnation, sequence, self._clock() - mark.age_s, since)
            stored = self._marks.setdefault((mark.incarnation, sequence), made)
            stored.since = min(stored.since, since)

    def acknowledged(self, incarnation: str | None) -> Acknowledged:
        marks = self._of(incarnation)
        now = self._clock()
        retained = [
            one.sequence for one in marks if now - one.acknowledged_at < one.max_age_s * AGE_SHARE
        ]
        highest = max((one.sequence for one in marks), default=0)
        return Acknowledged(incarnation, highest, min(retained, default=None))

    def since(self, incarnation: str | None, sequence: int) -> float | None:
        since = [one.since for one in self._of(incarnation) if one.sequence > sequence]
        return None if not since or min(since) == -math.inf else min(since)

    def replace(self, former: str | None, filled: FilledStream) -> None:
        """Keep the marks of ``former`` that are still true, and add those of the fill."""
        kept = [one for one in self._of(former) if one.sequence <= filled.kept]
        since = -math.inf if filled.since is None else filled.since
        begun = self._clock() - filled.took_s
        made = [
            _Mark(filled.incarnation, sequence, begun, since)
            for sequence in sorted({filled.first, filled.last} - {0})
        ]
        self._marks.clear()
        for one in (*made, *kept):
            one.incarnation = filled.incarnation
            self._marks[one.incarnation, one.sequence] = one

    def limit_age(self, max_age_s: float) -> None:
        for one in self._marks.values():
            one.max_age_s = min(one.max_age_s, max_age_s)

    def thin(self, incarnation: str | None) -> None:
        """Of each interval the highest mark stays; it takes over how far back the others reach."""
        kept: dict[int, _Mark] = {}
        until = self._clock() - _RECENT_S
        for one in sorted(self._of(incarnation), key=lambda one: -one.sequence):
            if one.acknowledged_at >= until:
                continue
            highest = kept.setdefault(int(one.acknowledged_at // _SPACING_S), one)
            highest.since = min(highest.since, one.since)
            if highest is not one:
                del self._marks[one.incarnation, one.sequence]

        for key in [key for key in self._marks if key[0] != incarnation]:
            del self._marks[key]

    def _of(self, incarnation: str | None) -> list[_Mark]:
        return [one for one in self._marks.values() if one.incarnation == incarnation]
