"""Statistics to metrics: snapshots go to Ray's Prometheus endpoint, a few times a minute.

The write path counts in plain integers; nothing on it knows a metrics library. This exporter turns
the snapshots into gauges and counters afterwards, off that path, so metrics cost a command nothing.
"""

from typing import Final, Literal, NamedTuple

from ray.util.metrics import Counter, Gauge

EXPORT_PERIOD_S: Final = 1.0
"""How often a process exports. Prometheus rarely scrapes more often."""


class Sample(NamedTuple):
    """One measurement. A counter's ``value`` is its total since the process started."""

    kind: Literal["counter", "gauge"]
    name: str
    description: str
    value: float
    tags: dict[str, str]


class Exporter:
    """Keeps one Ray metric per name, and what each counter had last time."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def export(self, samples: list[Sample]) -> None:
        for sample in samples:
            if sample.kind == "gauge":
                self._gauge(sample).set(sample.value, tags=sample.tags)
            else:
                self._increase(sample)

    def _gauge(self, sample: Sample) -> Gauge:
        gauge = self._gauges.get(sample.name)
        if gauge is None:
            gauge = Gauge(sample.name, sample.description, tag_keys=tuple(sample.tags))
            self._gauges[sample.name] = gauge
        return gauge

    def _increase(self, sample: Sample) -> None:
        counter = self._counters.get(sample.name)
        if counter is None:
            counter = Counter(sample.name, sample.description, tag_keys=tuple(sample.tags))
            self._counters[sample.name] = counter
        key = (sample.name, tuple(sorted(sample.tags.items())))
        grown = sample.value - self._totals.get(key, 0.0)
        self._totals[key] = sample.value
        if grown > 0:
            counter.inc(grown, tags=sample.tags)
