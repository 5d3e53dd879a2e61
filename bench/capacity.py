"""The tables of `specification/capacity.md`, from what `python -m bench.scaling` measured.

python -m bench.capacity [results/scaling.json]
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.results import FOLDER

_PARTS: Final = ("ingress", "haproxy", "shards", "projections", "ray", "postgres", "nats")

# Tables that grow with wallets, and with transfers.
_OF_WALLETS: Final = ("wallets", "wallet_projections")
_OF_TRANSFERS: Final = ("wallet_events", "transfers", "transfer_projections")


_LOADS: Final = {
    "deep_unary": "one wallet with half of them",
    "spread_unary": "a thousand wallets",
    "spread_again": "again",
}


def tables_of(found: Mapping[str, Any]) -> str:
    """All tables, in Markdown."""
    parts = [
        _circumstances(found),
        *(_section(title, text) for title, text in _sections(found) if text),
    ]
    return "\n\n".join(parts) + "\n"


def _sections(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    shapes, wallets, history = found["shapes"], found["wallets"], found["history"]
    return [
        ("Throughput by shape (transfers/s)", _throughput(shapes)),
        ("CPU seconds per 1,000 transfers, by part", _cpu(shapes)),
        ("What 10,000 transfers/s would take", _per_ten_thousand(shapes)),
        ("Wallets in the table", _wallets(wallets)),
        ("Events in the journal", _history(history)),
        ("Bytes on disk", _bytes(wallets, history)),
    ]


def _section(title: str, text: str) -> str:
    return f"### {title}\n\n{text}"


def _circumstances(found: Mapping[str, Any]) -> str:
    machine, postgres = found["machine"], found["postgres"]
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, "
        f"{machine['system']}; Postgres {postgres['server_version']} with fsync "
        f"{postgres['fsync']}, synchronous_commit {postgres['synchronous_commit']}; loads of "
        f"{found['seconds']:g} s, the generator on the same machine; commit "
        f"{found['commit'][:12] or 'unknown'}."
    )


def _throughput(shapes: Sequence[Mapping[str, Any]]) -> str:
    names = _scenario_names(shapes)
    rows = [
        [
            str(shape["shards"]),
            str(shape["ingress"]),
            *(f"{shape['scenarios'][name]['transfers_per_s']:,.0f}" for name in names),
        ]
        for shape in shapes
    ]
    return _table(["shards", "ingress replicas", *(f"`{name}`" for name in names)], rows)


def _cpu(shapes: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for shape in shapes:
        for name, measured in shape["scenarios"].items():
            cpu_s = measured["cpu_s_per_1000"]
            values = [cpu_s.get(part, 0.0) for part in _PARTS]
            label = f"{shape['shards']} / {shape['ingress']}"
            rows.append([label, f"`{name}`", *(f"{v:.3f}" for v in values), f"{sum(values):.3f}"])
    return _table(["shards / ingress", "scenario", *_PARTS, "all"], rows)


def _per_ten_thousand(shapes: Sequence[Mapping[str, Any]]) -> str:
    """Cores and bytes for 10,000 transfers/s, from the shape that does most in each scenario."""
    rows = []
    for name in _scenario_names(shapes):
        best = max(shapes, key=lambda shape: shape["scenarios"][name]["transfers_per_s"])
        cpu_s = best["scenarios"][name]["cpu_s_per_1000"]
        cores = [10 * cpu_s.get(part, 0.0) for part in _PARTS]
        rows.append(
            [
                f"`{name}`",
                *(f"{value:.1f}" for value in cores),
                f"{sum(cores):.1f}",
                _megabytes(10_000 * best["wal_bytes_per_transfer"][name]),
                _megabytes(10_000 * best["stream_bytes_per_event"]),
            ]
        )
    head = ["scenario", *(f"{part}, cores" for part in _PARTS), "all, cores"]
    return _table([*head, "WAL, MB/s", "stream, MB/s"], rows)


def _wallets(wallets: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{one['wallets']:,}",
            f"{one['touched']:,}",
            f"{one['cold_per_s']:,.0f}",
            f"{one['warm_per_s']:,.0f}",
            f"{one['activation_cpu_ms']:.3f}",
            f"{one['shard_bytes_per_wallet']:,.0f}",
            _megabytes(one["sizes"]["wallets_pkey"]),
            f"{one['hot_unary']['transfers_per_s']:,.0f}",
        ]
        for one in wallets
    ]
    head = ["wallets", "touched", "first transfer, /s", "second, /s", "activation, CPU ms"]
    return _table(
        [*head, "shard memory, bytes per wallet", "index of wallets, MB", "`hot_unary`, /s"], rows
    )


def _history(history: Sequence[Mapping[str, Any]]) -> str:
    """Earlier results lack the second load, and full pages."""
    if not history:
        return ""
    loads = [load for load in _LOADS if load in history[0]]
    counted = [load for load in loads if load in history[0].get("full_pages_per_transfer", {})]
    rows = [
        [
            f"{one['events']:,}",
            *(f"{one[load]['transfers_per_s']:,.0f}" for load in loads),
            *(f"{one[load]['p99_ms']:,.1f}" for load in loads),
            *(f"{one['full_pages_per_transfer'][load]:.2f}" for load in counted),
            _megabytes(one["sizes"]["wallet_events"]),
            _megabytes(one["sizes"]["wallet_events_pkey"]),
        ]
        for one in history
    ]
    head = [
        "events",
        *(f"{_LOADS[load]}, /s" for load in loads),
        *(f"{_LOADS[load]}, p99 ms" for load in loads),
        *(f"{_LOADS[load]}, full pages per transfer" for load in counted),
    ]
    return _table([*head, "journal, MB", "its index, MB"], rows)


def _bytes(wallets: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> str:
    """Bytes per row of each table, from the largest measurement that filled it."""
    if not wallets or not history:
        return ""
    rows = []
    for tables, one, count in (
        (_OF_WALLETS, wallets[-1], "wallets"),
        (_OF_TRANSFERS, history[-1], "events"),
    ):
        for table in tables:
            sizes = one["sizes"]
            indexes = sum(size for name, size in sizes.items() if name.startswith(f"{table}_"))
            cells = (f"{value / one[count]:,.0f}" for value in (sizes[table], indexes))
            rows.append([f"`{table}`", *cells])
    return _table(["table", "row, bytes", "its index entries, bytes"], rows)


def _scenario_names(shapes: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(shapes[0]["scenarios"]) if shapes else []


def _megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    aligned = ["---" if cell.startswith("`") else "--:" for cell in rows[0]]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(aligned)}|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "scaling.json"
    print(tables_of(json.loads(file.read_text(encoding="utf-8"))))
