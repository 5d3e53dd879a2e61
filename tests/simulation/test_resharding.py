"""The number of shards changes by one at a time, under load and faults."""

import asyncio
from itertools import pairwise
from typing import Final

import msgspec
import pytest

from actors.dispatch.ring import ring_of
from tests.simulation.loop import SimulatedLoop
from tests.simulation.run_config import RunConfig
from tests.simulation.scenario import run_seed
from tests.simulation.world import World

_STEPS: Final = (3, 4, 5, 6, 5, 4)
_WALLETS: Final = 8
_FIRST_SEED: Final = 50_000
_SEEDS_PER_TEST: Final = 4


class ReshardedWorld(World):
    """Two shards, then one more or one less at a time, each as an upgrade in place."""

    counts: list[int]

    def __init__(self, loop: SimulatedLoop, plan: RunConfig) -> None:
        super().__init__(loop, msgspec.structs.replace(plan, shards=2, wallets=_WALLETS))
        self.counts = []
        type(self).made.append(self)

    made: list["ReshardedWorld"] = []  # noqa: RUF012  # emptied by each test

    def start(self) -> None:
        super().start()
        self._process("operator").start(self._reshard())

    async def _reshard(self) -> None:
        plan = self.plan
        step_s = max(plan.think_s * plan.operations / len(_STEPS), 10 * plan.commit_s)
        for shards in _STEPS:
            old = self.deployments[-1]
            self.deploy(shards)
            self.counts.append(shards)
            await asyncio.sleep(step_s / 2)
            if old in self.deployments:
                self.retire(old)
            await asyncio.sleep(step_s / 2)


@pytest.mark.parametrize("first", range(_FIRST_SEED, _FIRST_SEED + 12, _SEEDS_PER_TEST))
def test_one_shard_more_or_less_at_a_time_breaks_no_rule(first: int) -> None:
    ReshardedWorld.made.clear()
    for seed in range(first, first + _SEEDS_PER_TEST):
        outcome = run_seed(seed, make=ReshardedWorld)
        found = [*map(str, outcome.violations), *outcome.failures]
        assert not found, f"seed {seed}: {found[:3]}"
    assert [one.counts for one in ReshardedWorld.made] == [list(_STEPS)] * _SEEDS_PER_TEST
    moved = [_moved(world) for world in ReshardedWorld.made]
    assert min(moved) > 0, "in each run wallets moved between shards"


def _moved(world: World) -> int:
    """How often a step moved a wallet."""
    rings = [ring_of(shards) for shards in (2, *_STEPS)]
    return sum(
        old.shard_of(wallet_id) != new.shard_of(wallet_id)
        for old, new in pairwise(rings)
        for wallet_id in world.database.wallets
    )
