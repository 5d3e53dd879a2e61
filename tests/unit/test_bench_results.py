"""From measurements to published results: audits, ratios, documents, pages."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench import readme_results, report, results
from bench.audit import Expected, count_findings, expected_of
from bench.baselines import pgbench
from bench.baselines.baseline_result import Baseline
from bench.database_state import State
from bench.generators.request_script import ResponseMode
from bench.generators.result import Latency, LoadResult
from bench.machine import Machine
from bench.measurement import BatchSizes, Measured, batch_sizes_of, measured_of, median_run_of
from bench.memory import MemoryGrowth
from bench.noisy_neighbour import Neighbour
from bench.processes import part_of
from bench.ratios import TARGETS, Measurements, ratios_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def load_result(**changes: Any) -> LoadResult:
    values: dict[str, Any] = {
        "generator": "wrk",
        "connections": 256,
        "began_at": 100.0,
        "ended_at": 110.0,
        "statuses": {"201": 1000},
        "latency": Latency(p50_ms=1.0, p95_ms=2.0, p99_ms=3.0, max_ms=4.0),
        "generator_cpu_s": 1.0,
    }
    return LoadResult(**{**values, **changes})


def state(*, versions: int, transfers: int) -> State:
    return State(wallets=1, versions=versions, transfers=transfers, now=NOW)


# -- audit ---------------------------------------------------------------------------------------


def test_a_write_promises_a_transfer_and_an_event() -> None:
    assert expected_of(load_result(), ResponseMode.PLAIN) == Expected(transfers=1000, events=1000)


def test_reads_among_writes_promise_nothing() -> None:
    result = load_result(statuses={"201": 8, "200": 2})
    assert expected_of(result, ResponseMode.PLAIN) == Expected(transfers=8, events=8)
    assert expected_of(result, ResponseMode.PLAIN, reads=True) == Expected(transfers=0, events=0)


def test_a_settlement_promises_an_event_and_no_transfer() -> None:
    result = load_result(statuses={"201": 10, "200": 7})
    assert expected_of(result, ResponseMode.SETTLE) == Expected(transfers=10, events=17)


def test_a_batch_promises_its_accepted_items() -> None:
    result = load_result(statuses={"200": 2}, items_accepted=1999, items_refused=1)
    assert expected_of(result, ResponseMode.ITEMS) == Expected(transfers=1999, events=1999)


def test_as_many_rows_as_answers_is_in_order() -> None:
    before, after = state(versions=5, transfers=4), state(versions=22, transfers=14)
    assert count_findings(Expected(transfers=10, events=17), before, after) == []


@pytest.mark.parametrize(("transfers", "events"), [(11, 17), (9, 17), (10, 16), (10, 18)])
def test_one_too_many_or_too_few_is_found(transfers: int, events: int) -> None:
    before = state(versions=5, transfers=4)
    after = state(versions=5 + events, transfers=4 + transfers)
    assert len(count_findings(Expected(transfers=10, events=17), before, after)) == 1


# -- figures -------------------------------------------------------------------------------------


def test_throughput_counts_accepted_requests_until_the_last_answer() -> None:
    result = load_result(statuses={"201": 1000, "429": 500})
    measured = measured_of(result, Expected(transfers=1000, events=1000), drained_at=120.0)
    assert measured.requests_per_s == 100.0
    assert measured.transfers_per_s == 100.0
    assert measured.drained_per_s == 50.0
    assert dict(measured.errors) == {"429": 500}


def test_a_transfer_of_two_phases_counts_when_it_is_settled() -> None:
    result = load_result(statuses={"201": 1000, "200": 900})
    measured = measured_of(result, Expected(transfers=1000, events=1900))
    assert measured.requests_per_s == 190.0
    assert measured.transfers_per_s == 90.0


def test_a_read_has_no_transfers_and_nothing_to_drain() -> None:
    result = load_result(statuses={"200": 1000})
    measured = measured_of(result, Expected(transfers=0, events=0), drained_at=111.0)
    assert (measured.transfers_per_s, measured.drained_per_s) == (0.0, None)


def test_cpu_is_reported_per_thousand_transfers() -> None:
    result = load_result()
    expected = Expected(transfers=1000, events=1000)
    measured = measured_of(result, expected, cpu_s={"ingress": 0.5})
    assert dict(measured.cpu_s_per_1000) == {"ingress": 0.5}


def test_batch_sizes_keep_their_course_in_few_points() -> None:
    batches = [(NOW + timedelta(milliseconds=n), n % 10 + 1) for n in range(1000)]
    sizes = batch_sizes_of(batches)
    assert sizes is not None
    assert (sizes.batches, sizes.mean, sizes.max) == (1000, 5.5, 10)
    assert len(sizes.series) == 200
    assert sizes.series[0][0] == 0.0
    assert batch_sizes_of([]) is None


@pytest.mark.parametrize(
    ("title", "part"),
    [
        ("ray::ShardActor.submit ", "shards"),
        ("ray::ServeReplica:api:Ingress ", "ingress"),
        ("ray::ProjectionActor ", "projections"),
        ("ray::ServeController ", "ray"),
        ("/x/bin/haproxy -db -f /y/haproxy.cfg ", "haproxy"),
        ("/x/bin/nats-server --config /y ", "nats"),
        ("/x/bin/postgres -D /y ", "postgres"),
        ("postgres: wallet wallet 127.0.0.1(1) idle ", "postgres"),
    ],
)
def test_processes_are_known_by_their_titles(title: str, part: str) -> None:
    assert part_of(title) == part


def test_pgbench_runs_the_same_statement_with_its_own_variables() -> None:
    script = pgbench.script()
    assert "$" not in script
    assert script.startswith("BEGIN;\nSELECT")
    assert script.endswith("COMMIT;\n")
    assert "FOR UPDATE \\gset" in script
    for table in ("transfers", "wallet_events", "outbox"):
        assert f"INSERT INTO {table}" in script


# -- ratios --------------------------------------------------------------------------------------


def measured(per_s: float, **changes: Any) -> Measured:
    values: dict[str, Any] = {
        "concurrency": 256,
        "requests_per_s": per_s,
        "transfers_per_s": per_s,
        "drained_per_s": per_s / 2,
        "p50_ms": 2.0,
        "p95_ms": 3.0,
        "p99_ms": 4.0,
        "max_ms": 5.0,
        "errors": {},
        "requests": 10,
        "transfers": 10,
        "duration_s": 1.0,
        "generator": "wrk",
        "generator_cpu_cores": 0.1,
    }
    return Measured(**{**values, **changes})


def baseline(per_s: float, **changes: Any) -> Baseline:
    values: dict[str, Any] = {
        "concurrency": 256,
        "requests_per_s": per_s,
        "transfers_per_s": per_s,
        "p50_ms": 1.0,
        "p95_ms": 2.0,
        "p99_ms": 3.0,
        "max_ms": 4.0,
    }
    return Baseline(**{**values, **changes})


def test_of_several_runs_the_median_is_reported_with_the_others() -> None:
    runs = [measured(2000.0, p99_ms=p99_ms) for p99_ms in (80.0, 30.0, 40.0)]

    middle = median_run_of(runs)

    assert middle.p99_ms == 40.0
    assert middle.p99_ms_of_looks == [80.0, 30.0, 40.0]


def test_a_single_run_is_its_own_median() -> None:
    snapshot = measured(2000.0, p99_ms=80.0)

    assert median_run_of([snapshot]) == snapshot


def test_two_runs_have_no_median_run() -> None:
    with pytest.raises(AssertionError):
        median_run_of([measured(2000.0), measured(2000.0)])


def measurements() -> Measurements:
    sizes = BatchSizes(batches=2, mean=3.0, p50=3, max=4, series=[(0.0, 2.0), (0.1, 4.0)])
    hot = measured(4000.0, batch_sizes=sizes)
    batch = measured(30_000.0, batch_sizes=sizes)
    uniform = measured(3200.0)
    return Measurements(
        closed={
            "hot_unary": {1: measured(500.0, concurrency=1, p50_ms=1.5), 256: hot},
            "uniform_unary": {256: uniform},
            "hot_batch": {4: batch},
        },
        headline={
            "hot_unary": hot,
            "uniform_unary": uniform,
            "four_hot_unary": measured(3600.0),
            "hot_batch": batch,
        },
        open={"hot_unary": {50: measured(2000.0, p99_ms=18.0)}},
        fastapi=[
            baseline(800.0),
            baseline(1000.0),
            baseline(900.0, concurrency=1, p50_ms=1.0),
            baseline(600.0, concurrency=1, p50_ms=3.0),
        ],
        pgbench=[baseline(1500.0), baseline(2000.0)],
        limit={100: baseline(40_000.0), 500: baseline(60_000.0)},
        neighbour=Neighbour(
            alone_p50_ms=1.0,
            alone_p99_ms=10.0,
            contended_p50_ms=2.0,
            contended_p99_ms=30.0,
            overload_requests_per_s=3000.0,
        ),
        memory=MemoryGrowth(
            transfers=1, before={"ray": 100, "nats": 100}, after={"ray": 110, "nats": 110}
        ),
    )


def test_ratios_compare_with_the_best_of_each_baseline() -> None:
    assert ratios_of(measurements()) == {
        "hot_unary_vs_fastapi": 4.0,
        "hot_unary_vs_pgbench": 2.0,
        "hot_batch_vs_pgbench": 15.0,
        "hot_batch_vs_limit": 0.5,
        "hot_vs_uniform": 1.25,
        "four_hot_vs_hot": 0.9,
        "drained_vs_accepted": 0.5,
        "p50_alone_vs_fastapi": 1.5,
        "p99_half_load_ms": 18.0,
        "neighbour_p99_ratio": 3.0,
        "memory_growth": 1.1,
    }


def test_what_was_not_measured_has_no_ratio() -> None:
    assert set(ratios_of(Measurements()).values()) == {None}


def test_verdicts_know_which_way_is_better() -> None:
    more, less = TARGETS["hot_unary_vs_fastapi"], TARGETS["memory_growth"]
    assert [more.verdict(value) for value in (2.9, 3.0, 5.0)] == ["missed", "floor", "goal"]
    assert [less.verdict(value) for value in (1.31, 1.3, 1.1)] == ["missed", "floor", "goal"]


# -- what a run leaves ---------------------------------------------------------------------------


def document(**settings: str) -> dict[str, object]:
    postgres = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
    circumstances = results.Circumstances(
        mode="full",
        commit="0123456789abcdef",
        machine=Machine(cores=2, cpu="A <CPU>", memory_gib=8.0, system="Linux", python="3.11"),
        versions={"ray": "2.60.0"},
        postgres={"server_version": "18.0", **postgres, **settings},
        service={"shards": 2},
        generator="wrk",
    )
    return results.document_of(circumstances, measurements())


def test_the_document_has_the_keys_that_others_read(tmp_path: Path) -> None:
    results.write(document(), tmp_path / "latest.json")
    found = results.read(tmp_path / "latest.json")
    hot = found["scenarios"]["hot_unary"]
    wanted = {"requests_per_s", "transfers_per_s", "drained_per_s"}
    assert wanted | {"p50_ms", "p95_ms", "p99_ms", "errors"} <= hot.keys()
    assert set(hot["runs"]) == {"1", "256"}
    assert set(hot["open_loop"]) == {"50"}
    assert {"fastapi", "pgbench", "limit"} == found["baselines"].keys()
    assert found["baselines"]["fastapi"]["transfers_per_s"] == 1000.0
    assert found["ratios"].keys() == TARGETS.keys()
    assert {"machine", "versions", "postgres", "commit"} <= found.keys()


def test_a_server_without_fsync_is_reported() -> None:
    assert document()["durable"] is True
    assert document(fsync="off")["durable"] is False


def test_the_report_needs_nothing_else_and_escapes_what_it_shows(tmp_path: Path) -> None:
    picture = tmp_path / "throughput.png"
    picture.write_bytes(b"\x89PNG")
    report.write_report(document(), {"throughput": picture}, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in text
    assert "A &lt;CPU&gt;" in text
    assert "http://" not in text
    assert 'src="data:' in text


def test_on_a_narrow_screen_each_cell_names_its_column(tmp_path: Path) -> None:
    report.write_report(document(), {}, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "@media (max-width: 40rem)" in text
    assert "content: attr(data-column)" in text
    cells = re.findall(r"<td[^>]*>", text)
    assert len(cells) > 50
    assert [cell for cell in cells if 'data-column="' not in cell] == []
    assert 'data-column="goal"' in text


def test_the_page_is_written_between_its_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{readme_results.BEGIN}\nold\n{readme_results.END}\nafter\n")
    readme_results.update(document(), readme)
    readme_results.update(document(), readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{readme_results.END}\nafter\n")
    assert "old" not in text
    assert text.count("| `hot_unary_vs_fastapi` |") == 1


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    with pytest.raises(ValueError, match="markers"):
        readme_results.update(document(), readme)
    assert readme.read_text() == "nothing here\n"
