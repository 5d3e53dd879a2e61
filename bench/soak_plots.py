"""A soak in pictures: latency, memory and sizes, minute by minute."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from bench.soak import Minute, Soak

_MEGABYTE: Final = 1e6


def draw(found: "Soak", file: Path) -> None:
    """Write the picture as PNG."""
    panels: list[tuple[str, dict[str, Callable[[Minute], float]]]] = [
        ("latency, ms", {"p50": lambda one: one.p50_ms, "p99": lambda one: one.p99_ms}),
        ("memory, MB", {part: _memory_of(part) for part in sorted(found.minutes[0].memory)}),
        (
            "on disk, MB",
            {
                "tables and indexes": lambda one: sum(one.tables.values()) / _MEGABYTE,
                "stream": lambda one: one.stream_bytes / _MEGABYTE,
            },
        ),
        ("dead rows, thousands", {"all tables": lambda one: one.dead_rows / 1_000}),
    ]
    figure, axes = plt.subplots(len(panels), 1, figsize=(9, 11), sharex=True, layout="constrained")
    minutes = range(1, len(found.minutes) + 1)
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for name, value in lines.items():
            axis.plot(minutes, [value(one) for one in found.minutes], label=name)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", fontsize=8)
    axes[-1].set_xlabel("minutes")
    figure.savefig(file, dpi=130, facecolor="white")
    plt.close(figure)


def _memory_of(part: str) -> "Callable[[Minute], float]":
    return lambda one: one.memory.get(part, 0) / _MEGABYTE
