"""The table of measured ratios, generated from the results of the benchmark's last full run."""

import json
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parents[2] / "bench/results/latest.json"

_RATIOS: Final = {
    "hot_unary_vs_fastapi": "one hot wallet, throughput ÷ a row-locking FastAPI service",
    "hot_unary_vs_pgbench": "one hot wallet, throughput ÷ the same row lock in pgbench, no HTTP",
    "hot_batch_vs_pgbench": "the same in batch requests of 1,000 ÷ the same pgbench",
    "p50_alone_vs_fastapi": "one connection, median latency ÷ the row-locking service's",
    "neighbour_p99_ratio": "another wallet's p99 beside an overloaded wallet ÷ without it",
}
"""Name of a ratio in the results → what it compares."""


def performance_table() -> str:
    """Five ratios as a Markdown table, with the test conditions in a sentence below."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = ["| ratio | measured | floor | goal |", "|---|--:|--:|--:|"]
    lines += [_row(name, shown, results) for name, shown in _RATIOS.items()]
    return "\n".join([*lines, "", _conditions(results)])


def _row(name: str, shown: str, results: Any) -> str:
    target = results["targets"][name]
    sign = "≥" if target["at_least"] else "≤"
    measured = f"{results['ratios'][name]:.2f}"
    return f"| {shown} | {measured} | {sign} {target['floor']:g} | {sign} {target['goal']:g} |"


def _conditions(results: Any) -> str:
    targets = results["targets"].values()
    missed = sum(target["verdict"] not in ("goal", "floor") for target in targets)
    floors = (
        f"All {len(targets)} floors were kept"
        if not missed
        else f"{missed} of {len(targets)} floors were missed"
    )
    machine, day = results["machine"], results["made_at"].partition("T")[0]
    return (
        f"{floors} in the {results['mode']} run of {day} (commit {results['commit'][:12]}): "
        f"{machine['cores']} cores, shared with the load generator,\n"
        f"`fsync` {results['postgres']['fsync']}, every load audited."
    )
