"""Injects faults in an order chosen by the seed, and heals all of them at the end."""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from tests.simulation.fault_probabilities import FaultProbabilities, SeededRandom
from tests.simulation.loop import Process
from tests.simulation.stream import StoreCopy
from tests.simulation.world import Deployment, Standby, World
from wallet.ids import WalletId
from wallet.state import Wallet

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
    """Injects faults for a while and heals all of them afterwards."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan
        self._random = SeededRandom(f"nemesis {world.plan.seed}")
        self._losses = SeededRandom(f"losses {world.plan.seed}")
        self._store_losses = SeededRandom(f"store losses {world.plan.seed}")
        self._failovers = SeededRandom(f"failovers {world.plan.seed}")
        self._process = world.client("nemesis")
        self._paused: list[Process] = []
        self.done: list[str] = []

    def start(self) -> "asyncio.Task[None]":
        return self._process.start(self._inject_all())

    async def _inject_all(self) -> None:
        loops = [self._inject_loop(), self._lose_streams(), self._lose_from_stores()]
        if self._plan.failovers:
            loops.append(self._lose_commits())
        await asyncio.gather(*loops)

    async def _inject_loop(self) -> None:
        faults_done: list[Callable[[], Awaitable[None]]] = [
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
            faults_done = [
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
            await asyncio.sleep(self._random.between(0.0, 2 * self._plan.fault_gap_s))
            fault = self._random.choose(faults_done)
            self.done.append(fault.__name__)
            await fault()

    async def _lose_streams(self) -> None:
        """Delete the stream during a backfill; a relay may create it again immediately."""
        world, random, step_s = self._world, self._losses, self._plan.commit_s
        for _ in range(self._plan.stream_losses):
            await asyncio.sleep(random.between(0.0, 4 * self._plan.fault_gap_s))
            world.stream.remove()
            for _ in range(random.count(0, 3)):
                await self._until_backfilling()
                await asyncio.sleep(random.between(0.0, 20 * step_s))
                self.done.append("_lose_stream_while_it_is_filled")
                world.stream.remove()
                await asyncio.sleep(random.between(0.0, 2 * step_s))
                if random.happens(0.7):
                    world.stream.ensure()

    async def _lose_from_stores(self) -> None:
        """Put a copy of NATS's store back, or purge the stream; sometimes during a refill."""
        world, random, plan = self._world, self._store_losses, self._plan
        for _ in range(plan.store_losses):
            store = world.stream.copy_store()
            await asyncio.sleep(random.between(0.0, 4 * plan.fault_gap_s))
            if random.happens(0.3):
                # The relays' periodic check is what notices it.
                await asyncio.sleep(random.between(0.0, 20.0))
            await self._lose_from_store(store)
            if random.happens(0.5):
                await self._until_backfilling()
                await asyncio.sleep(random.between(0.0, 20 * plan.commit_s))
                await self._lose_from_store(store)

    async def _lose_from_store(self, store: StoreCopy) -> None:
        world = self._world
        if self._store_losses.happens(0.5):
            self.done.append("_put_copy_of_store_back")
            world.stream.restore(copy.deepcopy(store))
        elif world.stream.exists:
            self.done.append("_purge_stream")
            world.stream.purge()

    async def _until_backfilling(self) -> None:
        for _ in range(100):
            if self._world.stream.stored and self._world.database.backfill_owner is not None:
                return
            await asyncio.sleep(self._plan.commit_s)

    async def _lose_commits(self) -> None:
        """Fail over to standbys that are some commits behind."""
        random, plan = self._failovers, self._plan
        for _ in range(plan.failovers):
            await asyncio.sleep(random.between(0.0, 3 * plan.fault_gap_s + plan.think_s))
            await self._fail_over()

    async def _fail_over(self) -> None:
        """Often with two owners of each wallet, with those suspended that remember the lost history
        until the new one is as long, and with commits that wait with their locks."""
        world, random, plan = self._world, self._failovers, self._plan
        second = world.deploy(random.count(1, 3)) if random.happens(0.7) else None
        if random.happens(0.3):
            world.journal_faults.hold = 0.5
        # Something remains: a client writes to wallets that it knows, even if they are lost.
        await self._until_committed(random.count(1, 4) + plan.wallets)
        standby = world.standby()
        await self._until_committed(random.choose((1, 1, 2, 3, 6, 12)))
        hidden, suspends = random.happens(0.5), random.happens(0.5)
        suspended = self._suspend_who_remembers(standby) if suspends else []
        lost = dict(world.database.wallets)
        world.fail_over(standby, hidden=hidden)
        self.done.append("_lose_commits_unnoticed" if hidden else "_lose_commits")
        world.journal_faults.hold = 0.0
        await self._until(lambda: self._is_as_long(lost, standby))
        for process in suspended:
            process.resume()
        await asyncio.sleep(random.between(0.0, 4 * plan.think_s))
        if second is not None and second in world.deployments and len(world.deployments) > 1:
            world.retire(second)

    def _suspend_who_remembers(self, standby: Standby) -> list[Process]:
        """Suspend the shards that cache an event which ``standby`` lacks."""
        kept = standby.database.wallets
        suspended = [
            host.process
            for deployment in self._world.deployments
            for host in deployment.hosts
            if host.process is not None and host.shard is not None and not host.process.paused
            if any(
                (active := host.shard._cache.get(one)) is not None
                and (one not in kept or active.state.version > kept[one].version)
                for one in self._world.database.wallets
            )
        ]
        for process in suspended:
            process.pause()
        self._paused += suspended
        return suspended

    def _is_as_long(self, lost: Mapping[WalletId, Wallet], standby: Standby) -> bool:
        """Whether a wallet with lost events has reached the lost version again."""
        written, kept = self._world.database.wallets, standby.database.wallets
        return any(
            one in kept and kept[one].version < wallet.version <= written[one].version
            for one, wallet in lost.items()
            if one in written
        )

    async def _until_committed(self, commits: int) -> None:
        """Return after about that many further commits."""
        database = self._world.database
        until = database.commits + commits
        await self._until(lambda: database.commits >= until)

    async def _until(self, happened: Callable[[], bool]) -> None:
        """Return when it has ``happened``, or after a while: clients may have ended."""
        step_s = max(self._plan.commit_s, self._plan.think_s / 4) / 4
        for _ in range(400):
            if happened():
                return
            await asyncio.sleep(step_s)

    def heal(self) -> None:
        """End all faults and restart dead processes."""
        world = self._world
        for probabilities in (
            world.journal_faults,
            world.outbox_faults,
            world.stream_faults,
            world.store_faults,
        ):
            probabilities.calm()
        world.network.slow_share = world.network.broken_share = 0.0
        for process in (world.postgres, world.nats, *self._paused):
            process.resume()
        for deployment in world.deployments:
            self._revive(deployment)
        for group, consumer in enumerate(world.consumers):
            if consumer is not None and not consumer.alive:
                world.start_consumer(group)
        if world.losses:
            world.recover()

    def _revive(self, deployment: Deployment) -> None:
        world = self._world
        for number, host in enumerate(deployment.hosts):
            if host.process is None or not host.process.alive:
                world.start_shard(deployment, number)
        if deployment.ingress is None or not deployment.ingress.alive:
            world.start_ingress(deployment)

    # -- processes ---------------------------------------------------------------------------------

    def _any_host(self) -> tuple[Deployment, int]:
        deployment = self._random.choose(self._world.deployments)
        return deployment, self._random.count(0, len(deployment.hosts) - 1)

    async def _kill_shard(self) -> None:
        deployment, number = self._any_host()
        process = deployment.hosts[number].process
        if process is not None and process.alive:
            process.kill()
        await self._pass()
        if deployment in self._world.deployments:
            self._revive(deployment)

    async def _forget_shard(self) -> None:
        """A paused shard is replaced; later it resumes, unaware of its successor."""
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
        if self._random.happens(0.5):
            await self._pass()
            process.kill()

    async def _kill_ingress(self) -> None:
        deployment = self._random.choose(self._world.deployments)
        if deployment.ingress is not None and deployment.ingress.alive:
            deployment.ingress.kill()
        await self._pass()
        if deployment in self._world.deployments:
            self._revive(deployment)

    async def _kill_consumer(self) -> None:
        group = self._random.count(0, self._plan.groups - 1)
        process = self._world.consumers[group]
        if process is not None and self._random.happens(0.7):
            process.kill()
        await self._pass()
        self._world.start_consumer(group)

    async def _redeploy(self) -> None:
        """Change the shard count: for a while both versions own every wallet."""
        old = self._world.deployments[0]
        self._world.deploy(self._random.count(1, 3))
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
        """NATS loses messages that it acknowledged but did not sync."""
        self._world.stream.lose_power(keeps_all=self._random.happens(0.3))
        await self._stop(self._world.nats)

    async def _stop(self, process: Process) -> None:
        process.pause()
        await self._pass()
        process.resume()

    async def _bad_journal(self) -> None:
        await self._corrupt(self._world.journal_faults)

    async def _hold_commits(self) -> None:
        """A synchronous standby is down: commits wait with their locks while shards die."""
        self._world.journal_faults.hold = self._random.choose((0.3, 0.8))
        await self._pass()
        if self._random.happens(0.5):
            await self._kill_shard()
        await self._pass()
        self._world.journal_faults.hold = 0.0

    async def _bad_stream(self) -> None:
        await self._corrupt(self._world.stream_faults)

    async def _bad_outbox(self) -> None:
        await self._corrupt(self._world.outbox_faults)

    async def _bad_store(self) -> None:
        await self._corrupt(self._world.store_faults)

    async def _corrupt(self, probabilities: FaultProbabilities) -> None:
        for name in _SPOILED:
            if self._random.happens(0.5):
                setattr(probabilities, name, self._random.choose((0.05, 0.3, 0.8)))
        await self._pass()
        probabilities.calm()

    async def _slow_network(self) -> None:
        self._world.network.slow_share = self._random.choose((0.1, 0.5))
        await self._pass()
        self._world.network.slow_share = 0.0

    async def _broken_network(self) -> None:
        """Connections to live shards break; requests in flight may still arrive."""
        self._world.network.broken_share = self._random.choose((0.1, 0.3, 0.6))
        await self._pass()
        self._world.network.broken_share = 0.0

    async def _pass(self) -> None:
        await asyncio.sleep(self._random.between(0.0, 2 * self._plan.fault_s))
