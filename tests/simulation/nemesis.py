"""What goes wrong in a run: one thing after another, as the seed chooses, and all of it mended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from tests.simulation.fault_probabilities import FaultProbabilities, SeededRandom
from tests.simulation.loop import Process
from tests.simulation.world import Deployment, World

_SPOILED: Final = (
    "fail_before",
    "lose_request",
    "lose_answer",
    "apply_late",
    "conflict",
    "refuse",
    "hold",
)


class Nemesis:
    """Does harm for a while, and mends all of it afterwards."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan
        self._dice = SeededRandom(f"nemesis {world.plan.seed}")
        self._losses = SeededRandom(f"losses {world.plan.seed}")
        self._process = world.client("nemesis")
        self._paused: list[Process] = []
        self.done: list[str] = []

    def start(self) -> "asyncio.Task[None]":
        return self._process.start(self._do_harm())

    async def _do_harm(self) -> None:
        await asyncio.gather(self._inject_loop(), self._lose_streams())

    async def _inject_loop(self) -> None:
        harms: list[Callable[[], Awaitable[None]]] = [
            self._kill_shard,
            self._kill_shard,
            self._forget_shard,
            self._forget_shard,
            self._kill_ingress,
            self._kill_consumer,
            self._redeploy,
            self._redeploy,
            self._stop_postgres,
            self._stop_nats,
            self._bad_journal,
            self._bad_journal,
            self._bad_stream,
            self._bad_outbox,
            self._bad_store,
            self._slow_network,
            self._broken_network,
            self._delete_stream,
            self._cut_power_of_nats,
        ]
        if self._plan.deliveries_suffer:
            harms = [
                self._broken_network,
                self._broken_network,
                self._bad_journal,
                self._hold_commits,
                self._hold_commits,
                self._kill_shard,
                self._forget_shard,
                self._redeploy,
            ]
        for _ in range(self._plan.faults):
            await asyncio.sleep(self._dice.between(0.0, 2 * self._plan.fault_gap_s))
            harm = self._dice.choose(harms)
            self.done.append(harm.__name__)
            await harm()

    async def _lose_streams(self) -> None:
        """Delete the stream while it is being filled; some relay may make it again at once."""
        world, dice, step_s = self._world, self._losses, self._plan.commit_s
        for _ in range(self._plan.stream_losses):
            await asyncio.sleep(dice.between(0.0, 4 * self._plan.fault_gap_s))
            world.stream.remove()
            for _ in range(dice.count(0, 3)):
                await self._until_filling()
                await asyncio.sleep(dice.between(0.0, 20 * step_s))
                self.done.append("_lose_stream_while_it_is_filled")
                world.stream.remove()
                await asyncio.sleep(dice.between(0.0, 2 * step_s))
                if dice.happens(0.7):
                    world.stream.ensure()

    async def _until_filling(self) -> None:
        for _ in range(100):
            if self._world.stream.stored and self._world.database.backfill_owner is not None:
                return
            await asyncio.sleep(self._plan.commit_s)

    def heal(self) -> None:
        """Make everything work again, and start what is dead."""
        world = self._world
        for odds in (world.journal_odds, world.outbox_odds, world.stream_odds, world.store_odds):
            odds.calm()
        world.network.slow_share = world.network.broken_share = 0.0
        for process in (world.postgres, world.nats, *self._paused):
            process.resume()
        for deployment in world.deployments:
            self._revive(deployment)
        for group, consumer in enumerate(world.consumers):
            if consumer is not None and not consumer.alive:
                world.start_consumer(group)

    def _revive(self, deployment: Deployment) -> None:
        world = self._world
        for number, host in enumerate(deployment.hosts):
            if host.process is None or not host.process.alive:
                world.start_shard(deployment, number)
        if deployment.ingress is None or not deployment.ingress.alive:
            world.start_ingress(deployment)

    # -- processes ---------------------------------------------------------------------------------

    def _any_host(self) -> tuple[Deployment, int]:
        deployment = self._dice.choose(self._world.deployments)
        return deployment, self._dice.count(0, len(deployment.hosts) - 1)

    async def _kill_shard(self) -> None:
        deployment, number = self._any_host()
        process = deployment.hosts[number].process
        if process is not None and process.alive:
            process.kill()
        await self._pass()
        if deployment in self._world.deployments:
            self._revive(deployment)

    async def _forget_shard(self) -> None:
        """A paused shard is replaced; later it goes on, and doesn't know."""
        deployment, number = self._any_host()
        process = deployment.hosts[number].process
        if process is None or not process.alive:
            return
        process.pause()
        self._paused.append(process)
        await self._pass()
        if deployment in self._world.deployments:
            self._world.start_shard(deployment, number)
        await self._pass()
        process.resume()
        if self._dice.happens(0.5):
            await self._pass()
            process.kill()

    async def _kill_ingress(self) -> None:
        deployment = self._dice.choose(self._world.deployments)
        if deployment.ingress is not None and deployment.ingress.alive:
            deployment.ingress.kill()
        await self._pass()
        if deployment in self._world.deployments:
            self._revive(deployment)

    async def _kill_consumer(self) -> None:
        group = self._dice.count(0, self._plan.groups - 1)
        process = self._world.consumers[group]
        if process is not None and self._dice.happens(0.7):
            process.kill()
        await self._pass()
        self._world.start_consumer(group)

    async def _redeploy(self) -> None:
        """Another number of shards: for a while both versions own every wallet."""
        old = self._world.deployments[0]
        self._world.deploy(self._dice.count(1, 3))
        await self._pass()
        if old in self._world.deployments and len(self._world.deployments) > 1:
            self._world.retire(old)

    # -- what they stand on ------------------------------------------------------------------------

    async def _stop_postgres(self) -> None:
        await self._stop(self._world.postgres)

    async def _stop_nats(self) -> None:
        await self._stop(self._world.nats)

    async def _delete_stream(self) -> None:
        self._world.stream.remove()
        await self._pass()

    async def _cut_power_of_nats(self) -> None:
        """What it had acknowledged and not yet written is gone, if there was any."""
        self._world.stream.lose_power(keeps_all=self._dice.happens(0.3))
        await self._stop(self._world.nats)

    async def _stop(self, process: Process) -> None:
        process.pause()
        await self._pass()
        process.resume()

    async def _bad_journal(self) -> None:
        await self._corrupt(self._world.journal_odds)

    async def _hold_commits(self) -> None:
        """A standby is away: commits wait, with their locks, and shards die meanwhile."""
        self._world.journal_odds.hold = self._dice.choose((0.3, 0.8))
        await self._pass()
        if self._dice.happens(0.5):
            await self._kill_shard()
        await self._pass()
        self._world.journal_odds.hold = 0.0

    async def _bad_stream(self) -> None:
        await self._corrupt(self._world.stream_odds)

    async def _bad_outbox(self) -> None:
        await self._corrupt(self._world.outbox_odds)

    async def _bad_store(self) -> None:
        await self._corrupt(self._world.store_odds)

    async def _corrupt(self, odds: FaultProbabilities) -> None:
        for name in _SPOILED:
            if self._dice.happens(0.5):
                setattr(odds, name, self._dice.choose((0.05, 0.3, 0.8)))
        await self._pass()
        odds.calm()

    async def _slow_network(self) -> None:
        self._world.network.slow_share = self._dice.choose((0.1, 0.5))
        await self._pass()
        self._world.network.slow_share = 0.0

    async def _broken_network(self) -> None:
        """Connections to live shards break; what was on its way arrives all the same, or not."""
        self._world.network.broken_share = self._dice.choose((0.1, 0.3, 0.6))
        await self._pass()
        self._world.network.broken_share = 0.0

    async def _pass(self) -> None:
        await asyncio.sleep(self._dice.between(0.0, 2 * self._plan.fault_s))
