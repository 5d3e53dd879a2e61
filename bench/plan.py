"""Durations and sizes of a full run and of a quick run."""

from typing import Final

import msgspec

from bench.scenarios import POOL_WALLETS, Scenario


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one run. All times are per load."""

    mode: str
    closed_s: float
    open_s: float
    baseline_s: float
    neighbour_s: float
    memory_transfers: int
    pool_wallets: int = POOL_WALLETS
    hot_runs: int = 1
    """How often `hot_unary`'s open loops are measured. Odd: the median counts."""
    is_thorough: bool = True
    """Every concurrency and every open loop, not only what a target needs."""

    def concurrencies(self, scenario: Scenario) -> tuple[int, ...]:
        """The numbers of connections that ``scenario`` is measured at, the headline's last."""
        if self.is_thorough:
            chosen = set(scenario.concurrencies)
        else:
            # One connection is what `p50_alone_vs_fastapi` compares.
            chosen = {1} if scenario.name == "hot_unary" else set()
        return (*sorted(chosen - {scenario.headline}), scenario.headline)

    def has_open_loop(self, scenario: Scenario) -> bool:
        """Whether ``scenario`` is measured at fixed rates, too."""
        return scenario.open_loop and (self.is_thorough or scenario.name == "hot_unary")

    def open_loop_runs(self, scenario: Scenario) -> int:
        """How often each open loop of ``scenario`` is measured."""
        return self.hot_runs if scenario.name == "hot_unary" else 1


FULL: Final = Plan(
    mode="full",
    closed_s=10.0,
    open_s=15.0,
    baseline_s=10.0,
    neighbour_s=20.0,
    memory_transfers=1_000_000,
    hot_runs=3,
)

QUICK: Final = Plan(
    mode="quick",
    closed_s=3.0,
    open_s=4.0,
    baseline_s=3.0,
    neighbour_s=5.0,
    memory_transfers=50_000,
    is_thorough=False,
)

OPEN_LOOP_SHARES: Final = (0.5, 0.8)
"""Of the closed loop's peak: well below the knee, and close to it."""

OPEN_LOOP_CONNECTIONS: Final = 256
"""As many as the busiest closed loop; waiting for a free one counts as latency."""
