"""The report of a load generator."""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

GRACE_S: Final = 15.0
"""How long a generator waits for responses after it stopped sending: longer than any deadline of
the service, so that every request that was sent gets a response."""

Count = Annotated[int, msgspec.Meta(ge=0)]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds. Open loop: from the intended start. Closed loop: from the real one."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """One load, from its first request to the last response."""

    generator: str
    connections: int
    rate: float | None = None
    """Requests/s that were intended (open loop); None: as fast as responses came (closed loop)."""
    began_at: float
    """When the first request was sent, as a Unix time."""
    ended_at: float
    """When the last response came, as a Unix time."""
    statuses: Mapping[str, Count]
    """Responses by HTTP status."""
    items_accepted: Count = 0
    items_refused: Count = 0
    refused_items: Mapping[str, Count] = {}
    """Refused items by the problem's code, if the generator reads it."""
    socket_errors: Count = 0
    unanswered: Count = 0
    """Requests that were sent and had no response when the generator gave up."""
    latency: Latency
    generator_cpu_s: float
    generator_lag_ms: float | None = None
    """Open loop: the longest that the generator itself was late to notice that a request is due."""

    @property
    def duration_s(self) -> float:
        return max(self.ended_at - self.began_at, 1e-6)

    @property
    def answers(self) -> int:
        return sum(self.statuses.values())

    @property
    def accepted(self) -> int:
        """Responses with a 2xx status."""
        return sum(count for status, count in self.statuses.items() if status.startswith("2"))

    @property
    def errors(self) -> dict[str, int]:
        """Everything but 2xx, by status or kind of error."""
        found = {status: n for status, n in self.statuses.items() if not status.startswith("2")}
        others = {
            "items": self.items_refused,
            "socket": self.socket_errors,
            "unanswered": self.unanswered,
        }
        by_code = {f"items: {code}": count for code, count in self.refused_items.items()}
        return found | {name: count for name, count in others.items() if count} | by_code
