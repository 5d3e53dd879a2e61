"""The targets: ratios within one run, so that they mean the same on a fast machine and a slow."""

from collections.abc import Mapping
from typing import Final

import msgspec

from bench.baselines.baseline_result import Baseline
from bench.measurement import Measured
from bench.memory import MemoryGrowth
from bench.noisy_neighbour import Neighbour


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a ratio should be. ``at_least``: more is better."""

    what: str
    floor: float
    goal: float
    at_least: bool = True

    def verdict(self, value: float) -> str:
        """`goal`, `floor` (kept, but short of the goal) or `missed`."""
        if self._keeps(value, self.goal):
            return "goal"
        return "floor" if self._keeps(value, self.floor) else "missed"

    def _keeps(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound


TARGETS: Final[Mapping[str, Target]] = {
    "hot_unary_vs_fastapi": Target(
        what="hot_unary at 256 ÷ FastAPI with row locks", floor=3.0, goal=5.0
    ),
    "hot_unary_vs_pgbench": Target(
        what="hot_unary at 256 ÷ pgbench with row locks", floor=1.3, goal=2.0
    ),
    "hot_batch_vs_pgbench": Target(
        what="hot_batch transfers/s ÷ pgbench with row locks", floor=8.0, goal=15.0
    ),
    "hot_batch_vs_limit": Target(
        what="hot_batch transfers/s ÷ the limit in batches of 500", floor=0.3, goal=0.6
    ),
    "hot_vs_uniform": Target(what="hot_unary ÷ uniform_unary", floor=0.9, goal=1.1),
    "four_hot_vs_hot": Target(what="four_hot_unary ÷ hot_unary, both at 256", floor=0.9, goal=1.0),
    "drained_vs_accepted": Target(
        what="drained ÷ accepted transfers/s in hot_batch", floor=0.4, goal=0.9
    ),
    "p50_alone_vs_fastapi": Target(
        what="hot_unary at 1 connection, p50 ÷ FastAPI's", floor=2.5, goal=1.0, at_least=False
    ),
    "p99_half_load_ms": Target(
        what="hot_unary at 50 % of its peak, p99 in ms", floor=60.0, goal=20.0, at_least=False
    ),
    "neighbour_p99_ratio": Target(
        what="a quiet wallet's p99 beside an overloaded wallet ÷ alone",
        floor=5.0,
        goal=2.0,
        at_least=False,
    ),
    "memory_growth": Target(
        what="memory after the transfers ÷ before", floor=1.3, goal=1.1, at_least=False
    ),
}


class Measurements(msgspec.Struct, kw_only=True):
    """Everything that one run measured. Missing parts were skipped."""

    closed: dict[str, dict[int, Measured]] = msgspec.field(default_factory=dict)
    """By scenario and concurrency."""
    open: dict[str, dict[int, Measured]] = msgspec.field(default_factory=dict)
    """By scenario and percent of its peak."""
    headline: dict[str, Measured] = msgspec.field(default_factory=dict)
    fastapi: list[Baseline] = msgspec.field(default_factory=list)
    pgbench: list[Baseline] = msgspec.field(default_factory=list)
    limit: dict[int, Baseline] = msgspec.field(default_factory=dict)
    """By batch size."""
    idle_cores: float | None = None
    """Cores that the service takes while the baselines run."""
    neighbour: Neighbour | None = None
    memory: MemoryGrowth | None = None
    skipped: dict[str, str] = msgspec.field(default_factory=dict)

    def peak(self, scenario: str) -> float:
        """The most requests/s of the closed loops of ``scenario``."""
        return max(one.requests_per_s for one in self.closed[scenario].values())


def ratios_of(found: Measurements) -> dict[str, float | None]:
    """Every target's value; None for what wasn't measured."""
    hot, uniform = found.headline.get("hot_unary"), found.headline.get("uniform_unary")
    batch = found.headline.get("hot_batch")
    fastapi = _best([one for one in found.fastapi if one.concurrency > 1])
    pgbench, limit = _best(found.pgbench), found.limit.get(500)
    half = found.open.get("hot_unary", {}).get(50)
    values = {
        "hot_unary_vs_fastapi": _over(_per_s(hot), _per_s(fastapi)),
        "hot_unary_vs_pgbench": _over(_per_s(hot), _per_s(pgbench)),
        "hot_batch_vs_pgbench": _over(_per_s(batch), _per_s(pgbench)),
        "hot_batch_vs_limit": _over(_per_s(batch), _per_s(limit)),
        "hot_vs_uniform": _over(_per_s(hot), _per_s(uniform)),
        "four_hot_vs_hot": _over(_per_s(found.headline.get("four_hot_unary")), _per_s(hot)),
        "drained_vs_accepted": _over(batch.drained_per_s if batch else None, _per_s(batch)),
        "p50_alone_vs_fastapi": _over(_p50_alone_ours(found), _p50_alone_fastapi(found)),
        "p99_half_load_ms": half.p99_ms if half else None,
        "neighbour_p99_ratio": found.neighbour.p99_ratio if found.neighbour else None,
        "memory_growth": found.memory.ratio if found.memory else None,
    }
    assert values.keys() == TARGETS.keys()
    return {key: None if value is None else round(value, 3) for key, value in values.items()}


def _best(baselines: list[Baseline]) -> Baseline | None:
    return max(baselines, key=lambda one: one.transfers_per_s, default=None)


def _per_s(one: Measured | Baseline | None) -> float | None:
    return None if one is None else one.transfers_per_s


def _over(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def _p50_alone_ours(found: Measurements) -> float | None:
    alone = found.closed.get("hot_unary", {}).get(1)
    return None if alone is None else alone.p50_ms


def _p50_alone_fastapi(found: Measurements) -> float | None:
    return min((one.p50_ms for one in found.fastapi if one.concurrency == 1), default=None)
