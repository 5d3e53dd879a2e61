"""The status view: rates between two snapshots, and visible problems."""

import io

import msgspec
import pytest
from rich.console import Console

from actors.shard.heavy_hitters import HotWallet
from deploy.cli.status_view import render_status
from deploy.local.status_source import StatusSnapshot
from runtime.metrics.histogram import Histogram
from serve_app.asgi.statistics import ReplicaStatistics
from tests.unit.test_metrics import PROJECTION, SHARD
from wallet.ids import WalletId

REPLICA = ReplicaStatistics(
    replica="abc",
    pid=1,
    requests=100,
    failed=0,
    overloaded=0,
    seconds=1.0,
    queued=0,
    pool={"busy": 3, "idle": 2, "max": 8},
)


def shown(before: StatusSnapshot, now: StatusSnapshot, *, width: int = 200) -> str:
    text = io.StringIO()
    Console(width=width, file=text).print(render_status(before, now))
    return text.getvalue()


def row_of(text: str, heading: str) -> list[str]:
    lines = text.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith(heading))
    return lines[place + 1].split()


def test_rates_are_measured_between_two_snapshots() -> None:
    commit = Histogram()
    commit.observe(0.004, 50)
    more = {**SHARD.distributions, "commit_seconds": commit.snapshot()}
    before = StatusSnapshot(at_s=10.0, shards=[SHARD], replicas=[REPLICA], projections=[PROJECTION])
    now = StatusSnapshot(
        at_s=12.0,
        shards=[msgspec.structs.replace(SHARD, commands=2_006, distributions=more)],
        replicas=[msgspec.structs.replace(REPLICA, requests=500, seconds=3.0)],
        projections=[msgspec.structs.replace(PROJECTION, events=1_002)],
    )
    text = shown(before, now)
    assert row_of(text, "REPLICA")[:4] == ["abc", "200", "5.0", "ms"]
    assert row_of(text, "SHARD")[:2] == ["1", "1,000"]
    assert "4.0 ms" in text
    assert row_of(text, "PROJECTION")[:2] == ["0", "500"]


def test_a_replaced_shard_begins_at_zero() -> None:
    before = StatusSnapshot(at_s=0.0, shards=[SHARD], replicas=[], projections=[])
    successor = msgspec.structs.replace(SHARD, pid=2, commands=1)
    text = shown(before, msgspec.structs.replace(before, at_s=1.0, shards=[successor]))
    assert row_of(text, "SHARD")[:2] == ["1", "0"]


def test_hot_wallets_come_hottest_first_from_all_shards() -> None:
    wallets = [HotWallet(WalletId(name), rate, 0.5) for name, rate in (("cool", 1.0), ("hot", 9.0))]
    shards = [msgspec.structs.replace(SHARD, shard=n, hot_wallets=[wallets[n]]) for n in range(2)]
    snapshot = StatusSnapshot(at_s=0.0, shards=shards, replicas=[], projections=[])
    assert row_of(shown(snapshot, snapshot), "HOT WALLET") == ["hot", "9.0", "50%", "1"]


def test_what_is_wrong_is_said() -> None:
    shard = msgspec.structs.replace(SHARD, journal_ready=False, hot_wallets=[])
    projection = msgspec.structs.replace(PROJECTION, ready=False)
    snapshot = StatusSnapshot(at_s=0.0, shards=[shard], replicas=[], projections=[projection])
    text = shown(snapshot, snapshot)
    assert "No replica responds." in text
    assert "1 (database down)" in text
    assert "0 (disconnected)" in text
    assert "9 mismatched" in text
    assert "dead letters 13" in text
    nobody = StatusSnapshot(at_s=0.0, shards=[], replicas=[], projections=[])
    text = shown(nobody, nobody)
    assert "No shard responds." in text
    assert "No projection responds." in text
    assert "Auditor is not running." in text


def test_what_counts_since_the_start_is_called_a_total() -> None:
    snapshot = StatusSnapshot(
        at_s=0.0, shards=[SHARD], replicas=[REPLICA], projections=[PROJECTION]
    )

    text = shown(snapshot, snapshot, width=80)

    for title in ("5XX TOTAL", "429 TOTAL", "CONFLICTS TOTAL", "GAPS TOTAL"):
        assert title in text


@pytest.mark.parametrize("is_down", [False, True])
def test_every_table_is_whole_at_80_columns(is_down: bool) -> None:
    stage = Histogram()
    stage.observe(0.1234, 50)
    slow = {name: stage.snapshot() for name in SHARD.distributions}
    hot = HotWallet(WalletId("0190a1b2-0000-7000-8000-000000000000"), 12_345.6, 0.5)
    replica = msgspec.structs.replace(REPLICA, replica="9xkq2m4z")
    before = StatusSnapshot(at_s=0.0, shards=[SHARD], replicas=[replica], projections=[PROJECTION])
    shard = msgspec.structs.replace(
        SHARD,
        commands=99_999,
        distributions=slow,
        hot_wallets=[hot],
        wallets_active=100_000,
        outbox_events=1_000_000,
        outbox_age_s=1_234.5,
        journal_ready=not is_down,
    )
    now = StatusSnapshot(
        at_s=1.0,
        shards=[shard],
        replicas=[
            msgspec.structs.replace(
                replica, requests=12_445, failed=123_456, overloaded=1_234_567, seconds=90.0
            )
        ],
        projections=[msgspec.structs.replace(PROJECTION, pending=1_234_567, ready=not is_down)],
    )

    text = shown(before, now, width=80)

    assert "…" not in text
    headings = [line.split() for line in text.splitlines() if line.isupper()]
    assert len(headings) == 5
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    for number in ("12,345", "123,456", "1,234,567", "1,000,000", "1,234.5 s", "123.4 ms"):
        assert number in text
    for words in ("(database", "(disconnected)") if is_down else ():
        assert words in text
