"""A projection's statistics as metrics. The table of them is in the README."""

from typing import Final

from projections.statistics import ProjectionStatistics
from telemetry.exporter import Sample

_COUNTERS: Final = {
    "events": "Events folded.",
    "batches": "Transactions that folded them.",
    "gaps": "Wallets caught up from the journal because events were missing.",
    "failures": "Interruptions by Postgres or NATS.",
    "dead_letters": "Events put aside because they could not be folded.",
}


def samples(statistics: ProjectionStatistics) -> list[Sample]:
    """The metrics of one snapshot."""
    tags = {"group": str(statistics.group)}
    found = [
        Sample("counter", f"wallet_projection_{name}_total", text, getattr(statistics, name), tags)
        for name, text in _COUNTERS.items()
    ]
    return [
        *found,
        Sample("gauge", "wallet_projection_lag_events", _LAG_EVENTS, statistics.pending, tags),
        Sample("gauge", "wallet_projection_lag_seconds", _LAG_SECONDS, statistics.lag_s, tags),
        Sample("gauge", "wallet_projection_ready", _READY, statistics.ready, tags),
    ]


_LAG_EVENTS: Final = "Events on the stream that are not folded yet."
_LAG_SECONDS: Final = "Time from the write of the last folded event to its folding."
_READY: Final = "1: following the stream."
