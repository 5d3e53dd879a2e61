"""What clients notice of another number of shards if processes start at no cost.

Two ingress replicas change from 2 to 6 shards one after the other. Times are simulated: they are
those of messages and commits, whatever the machine does.
"""

import asyncio
import statistics
from random import Random
from typing import Final

import msgspec

from actors.rpc.messages import Applied
from tests.simulation.fault_probabilities import SeededRandom
from tests.simulation.loop import SimulatedLoop, run
from tests.simulation.run_config import config_for_seed
from tests.simulation.world import Deployment, World
from tests.support.write_side import LIMITS, create_wallet, debit
from wallet.commands import Command, CommandItem, CommandRequest
from wallet.ids import WalletId

_WALLETS: Final = 128
_REQUESTS_PER_S: Final = 100
_PHASE_S: Final = 10.0


class Load:
    """Debits at a fixed rate, through each replica in turn."""

    def __init__(self, world: World, replicas: list[Deployment]) -> None:
        self.replicas = replicas
        self.latencies_s: dict[str, list[float]] = {}
        self.phase = "before"
        self._world = world
        self._client = world.client("load")
        self._random = SeededRandom("load")
        self._wallets = [WalletId(self._random.identifier()) for _ in range(_WALLETS)]

    async def create_wallets(self) -> None:
        for number, wallet_id in enumerate(self._wallets):
            await self._submit(number, wallet_id, create_wallet(wallet_id))

    async def run(self) -> None:
        """Until cancelled."""
        number = 0
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(1 / _REQUESTS_PER_S)
                group.create_task(self._debit(number, self.phase))
                number += 1

    async def _debit(self, number: int, phase: str) -> None:
        begun = self._world.loop.time()
        await self._submit(number, self._wallets[number % _WALLETS], debit())
        self.latencies_s.setdefault(phase, []).append(self._world.loop.time() - begun)

    async def _submit(self, number: int, wallet_id: WalletId, command: Command) -> None:
        # Each wallet through both replicas in turn: two shards of two rings write it in turn.
        deployment = self.replicas[(number + number // _WALLETS) % len(self.replicas)]
        dispatcher, ingress = deployment.dispatcher, deployment.ingress
        assert dispatcher is not None
        assert ingress is not None
        request = CommandRequest(
            wallet_id=wallet_id,
            items=(CommandItem(command=command, idempotency=None),),
            is_batch=False,
            request_id=self._random.identifier(),
            timeout_s=10.0,
        )
        network = self._world.network
        answer = await network.call(self._client, ingress, lambda: dispatcher.submit(request))
        assert isinstance(answer, Applied), answer


async def _hand_over(world: World) -> Load:
    old = world.deploy(2)
    load = Load(world, [old, old])
    await load.create_wallets()
    running = asyncio.create_task(load.run())
    await asyncio.sleep(_PHASE_S)
    new, load.phase = world.deploy(6), "during"
    for number in range(2):
        load.replicas[number] = new
        await asyncio.sleep(_PHASE_S / 2)
    load.phase = "after"
    await asyncio.sleep(_PHASE_S)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return load


def percentile(latencies_s: list[float], share: int) -> float:
    """In milliseconds."""
    return 1_000 * statistics.quantiles(latencies_s, n=100)[share - 1]


def test_no_request_waits_long_while_replicas_change_from_2_to_6_shards() -> None:
    plan = msgspec.structs.replace(
        config_for_seed(0), latency_s=0.001, commit_s=0.002, shard_limits=LIMITS, failovers=0
    )
    loop = SimulatedLoop(Random("handover"), shuffle_within=False)
    world = World(loop, plan)
    load = run(loop, _hand_over(world))
    assert not world.failures
    by_phase = load.latencies_s
    assert len(by_phase["during"]) > 0.9 * _PHASE_S * _REQUESTS_PER_S
    assert percentile(by_phase["during"], 50) < 2 * percentile(by_phase["before"], 50)
    assert percentile(by_phase["during"], 99) < 1.5 * percentile(by_phase["before"], 99) < 200
    assert sum(_conflicts(deployment) for deployment in world.deployments) > 0, "both rings wrote"


def _conflicts(deployment: Deployment) -> int:
    shards = [host.shard for host in deployment.hosts]
    return sum(shard.counts["conflicts"] for shard in shards if shard is not None)
