"""Exports statistics snapshots to Ray's Prometheus endpoint, once a second.

The write path counts in plain integers and uses no metrics library. This exporter turns the
snapshots into gauges and counters outside that path, so metrics cost a command nothing.

A histogram is exported as one counter per bucket: Ray's own histogram sends every single
observation, and its agent processes each of them again (see specification/decisions).
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ray.util.metrics import Counter, Gauge

from runtime.metrics.catalogue import CATALOGUE, MetricKind
from runtime.metrics.histogram import HistogramSnapshot

EXPORT_PERIOD_S: Final = 1.0
"""How often a process exports. Prometheus rarely scrapes more often."""

_COUNTER_EPSILON: Final = sys.float_info.min
"""Initial value of a counter, so that its series exists before the first event: Prometheus can't
see an increase from nothing to one. Ray's counters reject zero; added to one, this is lost in
rounding."""

Labels = dict[str, str]


class Sample(NamedTuple):
    """A value of a metric of the catalogue. For a counter: the total since the process started."""

    name: str
    value: float | HistogramSnapshot
    labels: Labels


class Exporter:
    """Keeps one Ray metric per name, and the last total of each counter."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._totals: dict[tuple[str, tuple[str, ...]], float] = {}

    def export(self, samples: Iterable[Sample]) -> None:
        for name, value, labels in samples:
            if isinstance(value, HistogramSnapshot):
                for part, count, bucket_labels in _histogram_samples(name, value, labels):
                    self._increase(part, count, bucket_labels, name)
            elif CATALOGUE[name].kind is MetricKind.GAUGE:
                self._gauge(name).set(value, tags=labels)
            else:
                self._increase(name, value, labels, name)

    def _gauge(self, name: str) -> Gauge:
        gauge = self._gauges.get(name)
        if gauge is None:
            metric = CATALOGUE[name]
            gauge = self._gauges[name] = Gauge(name, metric.description, tag_keys=metric.labels)
        return gauge

    def _increase(self, name: str, total: float, labels: Labels, metric: str) -> None:
        counter = self._counters.get(name)
        if counter is None:
            description = CATALOGUE[metric].description
            counter = self._counters[name] = Counter(name, description, tag_keys=tuple(labels))
        key = (name, tuple(labels.values()))
        before = self._totals.get(key)
        self._totals[key] = total
        if before is None:
            counter.inc(total or _COUNTER_EPSILON, tags=labels)
        elif total > before:
            counter.inc(total - before, tags=labels)


def _histogram_samples(
    name: str, distribution: HistogramSnapshot, labels: Labels
) -> Iterator[tuple[str, float, Labels]]:
    for bound, count in distribution.cumulative():
        yield f"{name}_bucket", count, {**labels, "le": bound}
    yield f"{name}_sum", distribution.total, labels
    yield f"{name}_count", distribution.count, labels
