"""A run in pictures: throughput beside the baselines, latency, batch size over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NAMES: Final = ("throughput", "latency", "batches")

_OURS: Final = "#1f6feb"
_THEIRS: Final = "#8b949e"
_PERCENTILES: Final = (("p50_ms", "#9ecbff"), ("p95_ms", "#1f6feb"), ("p99_ms", "#0b2f6b"))

_BASELINES: Final = {
    "fastapi": "FastAPI + SELECT … FOR UPDATE",
    "pgbench": "pgbench + SELECT … FOR UPDATE",
    "limit": "the limit: bare commit statement",
}


def draw(document: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Write the pictures as PNG into ``folder``; what a run didn't measure isn't drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "throughput": _throughput(document),
        "latency": _latency(document),
        "batches": _batches(document),
    }
    files = {}
    for name, figure in figures.items():
        file = folder / f"{name}.png"
        if figure is None:
            file.unlink(missing_ok=True)
            continue
        figure.savefig(file, dpi=130, facecolor="white")
        plt.close(figure)
        files[name] = file
    return files


def _throughput(document: Mapping[str, Any]) -> Figure | None:
    scenarios = document["scenarios"]
    ours = {name: one["transfers_per_s"] for name, one in scenarios.items()}
    theirs = {name: one["transfers_per_s"] for name, one in document["baselines"].items()}
    singles = [(n, v, _OURS) for n, v in ours.items() if v and not n.endswith("_batch")]
    singles += [(_BASELINES[n], theirs[n], _THEIRS) for n in ("fastapi", "pgbench") if n in theirs]
    batches = [(n, v, _OURS) for n, v in ours.items() if n.endswith("_batch")]
    batches += [(_BASELINES[n], theirs[n], _THEIRS) for n in ("pgbench", "limit") if n in theirs]
    panels = [
        (title, bars)
        for title, bars in (
            ("One transfer a request", singles),
            ("1,000 transfers a request", batches if len(batches) > len(theirs) - 1 else []),
        )
        if bars
    ]
    if not panels:
        return None
    heights = [len(bars) + 1.5 for _, bars in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9, 0.42 * sum(heights) + 0.6),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, bars) in zip(axes[:, 0], panels, strict=True):
        _bars(axis, title, bars)
    return figure


def _bars(axis: Axes, title: str, bars: Sequence[tuple[str, float, str]]) -> None:
    labels, values, colors = zip(*reversed(bars), strict=True)
    drawn = axis.barh(labels, values, color=colors, height=0.7)
    axis.bar_label(drawn, labels=[f"{value:,.0f}" for value in values], padding=4, fontsize=9)
    axis.set_title(f"{title}: transfers/s", loc="left", fontsize=11, fontweight="bold")
    axis.set_xlim(0, max(values) * 1.12)
    _plain(axis)
    axis.xaxis.set_visible(False)


def _latency(document: Mapping[str, Any]) -> Figure | None:
    rows = [
        (_label(name, run["concurrency"], share), run)
        for name, scenario in document["scenarios"].items()
        for share, run in (
            (None, scenario),
            *((share, run) for share, run in scenario["open_loop"].items()),
        )
    ]
    if not rows:
        return None
    figure, axis = plt.subplots(figsize=(9, 0.34 * len(rows) + 1.4), layout="constrained")
    positions = range(len(rows) - 1, -1, -1)
    for (_, run), position in zip(rows, positions, strict=True):
        values = [run[key] for key, _ in _PERCENTILES]
        axis.plot(values, [position] * len(values), color="#d0d7de", linewidth=2, zorder=1)
    for key, color in _PERCENTILES:
        axis.scatter(
            [run[key] for _, run in rows],
            list(positions),
            color=color,
            s=36,
            label=key.removesuffix("_ms"),
            zorder=2,
        )
    axis.set_yticks(list(positions), [label for label, _ in rows], fontsize=9)
    _milliseconds(axis, [run[key] for _, run in rows for key, _ in _PERCENTILES])
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    axis.set_title("Latency", loc="left", fontsize=11, fontweight="bold")
    _plain(axis)
    return figure


def _milliseconds(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with ticks at 1, 2, 5, 10, 20 … ms."""
    low, high = min(values) / 1.3, max(values) * 1.3
    ticks = [base * 10**power for power in range(-2, 6) for base in (1, 2, 5)]
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(shown, [f"{tick:g} ms" for tick in shown])
    axis.set_xticks([], minor=True)
    axis.grid(axis="x", color="#eaeef2")


def _label(name: str, concurrency: int, share: str | None) -> str:
    if share is None:
        return f"{name}, {concurrency} connections"
    return f"{name}, open loop at {share} %"


def _batches(document: Mapping[str, Any]) -> Figure | None:
    scenarios = document["scenarios"]
    chosen = [
        (name, scenarios[name]["batch_sizes"])
        for name in ("hot_unary", "hot_batch")
        if name in scenarios and scenarios[name]["batch_sizes"]
    ]
    if not chosen:
        return None
    figure, axes = plt.subplots(
        len(chosen), 1, figsize=(9, 2.2 * len(chosen)), squeeze=False, layout="constrained"
    )
    for axis, (name, sizes) in zip(axes[:, 0], chosen, strict=True):
        seconds, means = zip(*sizes["series"], strict=True)
        axis.vlines(seconds, 0, means, color=_OURS, alpha=0.25, linewidth=1)
        axis.scatter(seconds, means, color=_OURS, s=9)
        axis.set_ylim(0, 1.1 * max(means))
        axis.set_title(
            f"{name}: transfers a transaction (mean {sizes['mean']:,.0f}, most {sizes['max']:,})",
            loc="left",
            fontsize=11,
            fontweight="bold",
        )
        axis.grid(axis="y", color="#eaeef2")
        _plain(axis)
    axes[-1, 0].set_xlabel("seconds", fontsize=9)
    return figure


def _plain(axis: Axes) -> None:
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#d0d7de")
    axis.tick_params(length=0, labelsize=9)
