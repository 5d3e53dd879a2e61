"""Metrics: correct counts, listed in the catalogue, bounded cardinality."""

from collections.abc import Iterable

import msgspec
import pytest

from actors.shard import metrics
from actors.shard.batch_timings import BatchTimes, ShardTimings
from actors.shard.heavy_hitters import (
    LABELLED_MAX,
    OTHER,
    TOP_K,
    WINDOW_S,
    HotWallet,
    HotWalletTracker,
)
from actors.shard.mailbox import Countdown, QueuedRequest
from actors.shard.statistics import ShardStatistics
from projections import projection_metrics
from projections.statistics import AuditStatistics, ProjectionStatistics
from runtime.metrics import exporter
from runtime.metrics.catalogue import CATALOGUE, MetricKind, exported_names
from runtime.metrics.exporter import Exporter, Sample
from runtime.metrics.histogram import Histogram
from serve_app.asgi import request_metrics
from serve_app.http.problems import problem_counts
from tests.support.batches import request
from tests.support.write_side import debit
from wallet.ids import WalletId

SHARD = ShardStatistics(
    shard=1,
    pid=1,
    mailbox_items=2,
    wallets_active=3,
    activations=4,
    batches=5,
    commands=6,
    events=7,
    replays=8,
    refusals={"insufficient_funds": 9},
    conflicts=10,
    outcomes_unknown=11,
    overloaded=12,
    commands_per_s=13.0,
    hot_wallets=[HotWallet(WalletId("w"), 13.0, 0.75)],
    hot_commands={"w": 14},
    distributions={
        **ShardTimings().snapshots(),
        "publish_seconds": Histogram().snapshot(),
    },
    outbox_events=15,
    outbox_age_s=16.0,
    published=17,
    publish_failures=18,
    expired=28,
    chore_failures={"forget": 20},
    journal_ready=True,
    stream_ready=False,
    stream_refilling=True,
    stream_fills={"new": 0, "rolledback": 21},
    batch_commands_max_seen=19,
)

PROJECTION = ProjectionStatistics(
    group=0,
    pid=1,
    events=2,
    batches=3,
    gaps=4,
    lost_histories=16,
    failures=5,
    dead_letters=6,
    pending=7,
    lag_s=8.0,
    ready=True,
    fold_seconds=Histogram().snapshot(),
    audit=AuditStatistics(
        mismatched_wallets=9,
        standing_still=15,
        retaken=17,
        wallets=10,
        rounds=11,
        failures=12,
        dead_letters=13,
        outbox_age_s=14.0,
    ),
)


class Pool:
    """The part of a pool that the metrics use."""

    def get_size(self) -> int:
        return 5

    def get_idle_size(self) -> int:
        return 2

    def get_max_size(self) -> int:
        return 8


@pytest.fixture
def ingress() -> list[Sample]:
    request_metrics.requests["debit_wallet", 201] += 1
    request_metrics.seconds["debit_wallet"].observe(0.01)
    problem_counts["overloaded"] += 1
    return list(request_metrics.samples("r", [3], Pool()))  # type: ignore[arg-type]  # has what is called of it


# -- the catalogue -----------------------------------------------------------------------------


def test_every_metric_is_in_the_catalogue_and_the_other_way_round(ingress: list[Sample]) -> None:
    found = [*ingress, *metrics.samples(SHARD), *projection_metrics.samples(PROJECTION)]
    assert {sample.name for sample in found} == set(CATALOGUE)
    for sample in found:
        metric = CATALOGUE[sample.name]
        assert set(sample.labels) == set(metric.labels), sample.name
        assert isinstance(sample.value, int | float) != (metric.kind is MetricKind.HISTOGRAM), (
            sample.name
        )


def test_counters_are_named_as_totals_and_nothing_else_is() -> None:
    for name, metric in CATALOGUE.items():
        assert name.endswith("_total") == (metric.kind is MetricKind.COUNTER), name


def test_statistics_survive_their_way_through_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(SHARD), type=ShardStatistics) == SHARD
    encoded = msgspec.json.encode(PROJECTION)
    assert msgspec.json.decode(encoded, type=ProjectionStatistics) == PROJECTION


# -- distributions -----------------------------------------------------------------------------


def test_an_observation_counts_in_every_bucket_that_it_fits() -> None:
    histogram = Histogram((1.0, 2.0, 5.0))
    for value, times in ((0.5, 1), (2.0, 3), (4.0, 1), (9.0, 2)):
        histogram.observe(value, times)
    found = histogram.snapshot()
    assert found.cumulative() == [("1", 1), ("2", 4), ("5", 5), ("+Inf", 7)]
    assert found.count == 7
    assert found.total == 0.5 + 6.0 + 4.0 + 18.0
    assert found.mean == found.total / 7
    assert Histogram().snapshot().mean == 0.0


def test_each_request_of_a_batch_waits_through_all_of_its_stages() -> None:
    meters = ShardTimings()
    answered = Countdown(3)
    entries = [QueuedRequest(request(debit(), wallet=WalletId("w")), answered, 1.0)]
    entries += [
        QueuedRequest(request(*[debit()] * 4, wallet=WalletId("w")), answered, 2.0)
        for _ in range(2)
    ]
    times = BatchTimes(
        dequeued_loop_time=3.0, dequeued=7.0, loaded=7.25, decided=7.5, committed=8.5, answered=8.75
    )

    meters.record(entries, times)

    found = meters.snapshots()
    assert found["queue_seconds"].total == 2.0 + 1.0 + 1.0
    assert found["load_seconds"].total == 3 * 0.25
    assert found["decide_seconds"].total == 3 * 0.25
    assert found["commit_seconds"].total == 3 * 1.0
    assert found["reply_seconds"].total == 3 * 0.25
    stages = [one for name, one in found.items() if name.endswith("_seconds")]
    assert all(stage.count == 3 for stage in stages)
    assert found["batch_commands"].count == 1
    assert found["batch_commands"].total == 9


# -- hot wallets ---------------------------------------------------------------------------------


def test_the_hottest_wallets_come_first_with_their_share() -> None:
    hot = HotWalletTracker()
    hot.roll_window(0.0)
    for number in range(10):
        hot.add(WalletId(f"w{number}"), number * 10)
    hot.roll_window(WINDOW_S / 2)
    assert hot.hottest == [], "the window is not over"
    hot.roll_window(WINDOW_S)
    assert [wallet.wallet_id for wallet in hot.hottest] == ["w9", "w8", "w7", "w6", "w5"]
    assert len(hot.hottest) == TOP_K
    assert hot.hottest[0] == HotWallet(WalletId("w9"), 90 / WINDOW_S, 90 / 450)
    assert hot.commands_per_s == 450 / WINDOW_S
    hot.roll_window(2 * WINDOW_S)
    assert hot.hottest == []
    assert hot.commands_per_s == 0.0


def test_a_hot_wallet_is_found_among_very_many_and_memory_stays_bounded() -> None:
    hot = HotWalletTracker()
    hot.roll_window(0.0)
    for number in range(100_000):
        hot.add(WalletId(f"w{number}"), 1)
        if number % 4 == 0:
            hot.add(WalletId("hot"), 1)
    assert len(hot._counts) <= 4_001
    hot.roll_window(WINDOW_S)
    assert hot.hottest[0] == HotWallet(WalletId("hot"), 25_000 / WINDOW_S, 0.2)


def test_only_so_many_wallets_are_ever_named() -> None:
    hot = HotWalletTracker()
    hot.roll_window(0.0)
    for window in range(1, 3 * LABELLED_MAX):
        hot.add(WalletId(f"w{window}"), 100)
        hot.roll_window(window * WINDOW_S)
    assert len(hot.labelled_commands) == LABELLED_MAX + 1
    assert hot.labelled_commands[OTHER] == (2 * LABELLED_MAX - 1) * 100


def test_a_replica_has_one_series_for_what_is_queued() -> None:
    (queued,) = (
        sample
        for sample in request_metrics.samples("r", list(range(200)), None)
        if sample.name == "wallet_ingress_queued"
    )
    assert (queued.labels, queued.value) == ({"replica": "r"}, sum(range(200)))


# -- exporting -----------------------------------------------------------------------------------


class Recorded:
    """Replaces a Ray metric; refuses what Ray refuses."""

    made: dict[str, "Recorded"]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description
        assert name not in self.made, "a metric is created once"
        self.tag_keys = tag_keys
        self.values: dict[tuple[str, ...], float] = {}
        self.made[name] = self

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0
        place = self._place(tags)
        self.values[place] = self.values.get(place, 0.0) + value

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[self._place(tags)] = value

    def _place(self, tags: dict[str, str]) -> tuple[str, ...]:
        assert set(tags) == set(self.tag_keys)
        return tuple(tags[key] for key in self.tag_keys)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorded]:
    made: dict[str, Recorded] = {}
    kind = type("Kind", (Recorded,), {"made": made})
    monkeypatch.setattr(exporter, "Counter", kind)
    monkeypatch.setattr(exporter, "Gauge", kind)
    return made


def test_everything_in_the_catalogue_is_exported(
    made: dict[str, Recorded], ingress: Iterable[Sample]
) -> None:
    out = Exporter()
    out.export(ingress)
    out.export(metrics.samples(SHARD))
    out.export(projection_metrics.samples(PROJECTION))
    expected = {name for metric in CATALOGUE for name in exported_names(metric)}
    seen = {f"ray_{name}" + ("" if name.endswith("_total") else _suffix(name)) for name in made}
    assert seen == expected


def _suffix(name: str) -> str:
    return "_total" if name.endswith(("_bucket", "_sum", "_count")) else ""


def test_a_counter_is_there_before_its_first_event_and_then_counts_exactly(
    made: dict[str, Recorded],
) -> None:
    out = Exporter()
    for total in (0, 0, 3, 3, 5):
        out.export([Sample("wallet_shard_conflicts_total", total, {"shard": "0"})])
        assert ("0",) in made["wallet_shard_conflicts_total"].values
    assert made["wallet_shard_conflicts_total"].values[("0",)] == 5.0


def test_a_distribution_leaves_as_cumulative_buckets(made: dict[str, Recorded]) -> None:
    out, histogram = Exporter(), Histogram((1.0, 2.0))
    for value in (0.5, 1.5, 7.0):
        histogram.observe(value)
        out.export([Sample("wallet_shard_commit_seconds", histogram.snapshot(), {"shard": "0"})])
    buckets = made["wallet_shard_commit_seconds_bucket"]
    assert buckets.tag_keys == ("shard", "le")
    found = {place[1]: round(count) for place, count in buckets.values.items()}
    assert found == {"1": 1, "2": 2, "+Inf": 3}
    assert made["wallet_shard_commit_seconds_sum"].values[("0",)] == pytest.approx(9.0)
    assert made["wallet_shard_commit_seconds_count"].values[("0",)] == 3
