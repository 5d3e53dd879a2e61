"""A whole service in one thread: ingresses, shards, projections, Postgres and NATS.

The product code is real: `Dispatcher`, `Shard`, `OutboxRelay`, `ProjectionConsumer`, `Queries`.
Everything below it is simulated.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, NamedTuple, TypeVar

from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.ring import ring_of
from actors.journal.memory import (
    MemoryBackfill,
    MemoryExpiries,
    MemoryJournal,
    MemoryOutbox,
)
from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import Journal
from actors.outbox.relay import OutboxRelay
from actors.rpc.messages import decode_submissions, encode_replies
from actors.rpc.transport import ShardUnreachable
from actors.shard.background_tasks import BackgroundTasks
from actors.shard.shard import Shard
from projections.consumer import ConsumerOptions, ProjectionConsumer
from projections.queries import Queries
from runtime.postgres.reads import ReadUnavailable
from tests.simulation.connections import Connection
from tests.simulation.fault_probabilities import FaultProbabilities, SeededRandom
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.lost_commits import LostCommits
from tests.simulation.network import Lost, Network
from tests.simulation.projections import ProjectionTables, SimulatedStore
from tests.simulation.reads import SimulatedPool
from tests.simulation.relay_memory import ForgetfulRelay
from tests.simulation.run_config import RunConfig
from tests.simulation.stream import SimulatedStream, StreamServer
from tests.simulation.stream_reader import Reader

T = TypeVar("T")

_START = datetime(2026, 1, 1, tzinfo=UTC)


class ShardHost:
    """The host of one shard: one current process, and sometimes an old one that still runs."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self.shard: Shard | None = None
        self.relay: OutboxRelay | None = None


class Deployment:
    """One version of the service: its shards and its ingress."""

    def __init__(self, shards: int) -> None:
        self.hosts = [ShardHost() for _ in range(shards)]
        self.ingress: Process | None = None
        self.dispatcher: Dispatcher | None = None
        self.queries: Queries | None = None


class Standby(NamedTuple):
    """All tables of the database, at an earlier moment."""

    database: MemoryDatabase
    tables: ProjectionTables


class World:
    """Starts processes, and restarts them when they die."""

    def __init__(self, loop: SimulatedLoop, plan: RunConfig) -> None:
        self.loop = loop
        self.plan = plan
        self.seeded_random = SeededRandom(f"world {plan.seed}")
        self.journal_faults, self.outbox_faults, self.stream_faults, self.store_faults = (
            FaultProbabilities(latency_s=plan.commit_s) for _ in range(4)
        )
        self.network = Network(loop, Random(f"network {plan.seed}"), latency_s=plan.latency_s)
        self.processes: list[Process] = []
        self._database_connections: list[Connection] = []
        self.postgres = self._process("postgres")
        self.nats = self._process("nats")
        self.database = MemoryDatabase(clock=loop.time)
        self.stream = StreamServer(
            loop,
            duplicate_window_s=plan.duplicate_window_s,
            sync_s=plan.relay_limits.outbox_retention_s / 2,
        )
        self.tables = ProjectionTables(self.database)
        self._relays: list[ForgetfulRelay] = []
        self.losses: list[LostCommits] = []
        """What each failover lost."""
        self.deployments: list[Deployment] = []
        self.consumers: list[Process | None] = [None] * plan.groups

    # -- starting ---------------------------------------------------------------------------------

    def start(self) -> None:
        self.deploy(self.plan.shards)
        for group in range(self.plan.groups):
            self.start_consumer(group)

    def deploy(self, shards: int) -> Deployment:
        """Start another version of the service beside the running ones."""
        deployment = Deployment(shards)
        self.deployments.append(deployment)
        for number in range(shards):
            self.start_shard(deployment, number)
        self.start_ingress(deployment)
        return deployment

    def retire(self, deployment: Deployment) -> None:
        """Kill all processes of a version."""
        self.deployments.remove(deployment)
        for process in (deployment.ingress, *(host.process for host in deployment.hosts)):
            if process is not None and process.alive:
                process.kill()

    def start_shard(self, deployment: Deployment, number: int) -> None:
        """Start a new process for shard ``number``."""
        host = deployment.hosts[number]
        process = self._process(f"shard-{number}")
        skew = timedelta(seconds=self.seeded_random.between(-0.5, 0.5))
        ring = ring_of(len(deployment.hosts))
        outbox = MemoryOutbox(self.database, self._connection("outbox", self.outbox_faults))
        backfill = MemoryBackfill(self.database, self._connection("refill", self.outbox_faults))
        process.on_death(backfill.end_session)
        relay_class = ForgetfulRelay if self.plan.failovers else OutboxRelay
        relay = relay_class(
            outbox=outbox,
            stream=SimulatedStream(self.stream, self._nats_connection("publisher")),
            limits=self.plan.relay_limits,
            slots=ring.slots_of(number),
            backfill=backfill,
        )
        shard = process.context.run(
            lambda: Shard(
                journal=self.wrap_journal(
                    MemoryJournal(self.database, self._connection("journal", self.journal_faults)),
                    relay,
                ),
                relay=relay,
                limits=self.plan.shard_limits,
                now=lambda: _START + timedelta(seconds=self.loop.time()) + skew,
                expiries=MemoryExpiries(
                    self.database, self._connection("expiries", self.outbox_faults)
                )
                if self.plan.expiring_share
                else None,
                slots=ring.slots_of(number),
            )
        )
        host.process, host.shard, host.relay = process, shard, relay
        if isinstance(relay, ForgetfulRelay):
            relay.watch(self.database)
            self._relays.append(relay)
        process.start(shard.run())
        process.start(shard.reject_while_stalled())
        if shard.expiry is not None:
            process.start(shard.expiry.run())
        for task in (relay.run, relay.prune, relay.sweep):
            process.start(self._supervised(task))

    def _supervised(
        self, task: Callable[[], Coroutine[Any, Any, None]]
    ) -> Coroutine[Any, Any, None]:
        """``task``. A relay that remembers lost events fails, and is started again then."""
        if self.plan.failovers:
            return BackgroundTasks().supervise("relay", task)
        return task()

    def wrap_journal(self, journal: Journal, _relay: OutboxRelay) -> Journal:
        """The parts that a mutation may replace."""
        return journal

    def start_ingress(self, deployment: Deployment) -> None:
        process = self._process("ingress")
        deployment.ingress = process
        deployment.dispatcher = process.context.run(
            lambda: Dispatcher(
                _Transport(self, deployment, process),
                self.plan.dispatcher_limits(len(deployment.hosts)),
            )
        )
        pool = SimulatedPool(
            self.database, self.tables, self._connection("reads", self.store_faults)
        )
        deployment.queries = Queries(pool, timeout_s=self.plan.statement_timeout_s)  # type: ignore[arg-type]  # has what is called of it

    def start_consumer(self, group: int) -> None:
        process = self._process(f"projection-{group}")
        plan = self.plan
        consumer = ProjectionConsumer(
            client=Reader(self.loop, self.stream, self._nats_connection("reader")),
            store=self.make_store(),  # type: ignore[arg-type]  # has what is called of it
            options=ConsumerOptions(
                stream="WALLET_EVENTS",
                group=group,
                groups=plan.groups,
                partitions=plan.partitions,
                batch_max=plan.projection_batch_max,
                poll_s=1.0,
                ack_wait_s=plan.ack_wait_s,
            ),
        )
        self.consumers[group] = process
        process.start(consumer.run())

    def make_store(self) -> SimulatedStore:
        return SimulatedStore(self.tables, self._connection("store", self.store_faults))

    # -- losing commits ---------------------------------------------------------------------------

    def standby(self) -> "Standby":
        """The database as it is now: an asynchronous standby that stops to replay here."""
        return Standby(self.database.snapshot(), self.tables.snapshot())

    def fail_over(self, standby: "Standby", *, hidden: bool) -> None:
        """Promote ``standby``: what was committed since is lost.

        ``hidden``: a proxy keeps the clients' sessions, and delivers what is on its way.
        """
        lost = LostCommits(
            moment=self.loop.moment(), before=self.database.snapshot(), after=standby.database
        )
        self.losses.append(lost)
        self.database.restore(standby.database)
        self.tables.restore(standby.tables)
        for relay in self._relays:
            relay.forget(lost)
        if not hidden:
            for connection in self._database_connections:
                connection.break_off()

    def recover(self) -> None:
        """What an operator does after failovers.

        The projections of wallets whose events the consumers have acknowledged before the failover
        are applied from the journal, and a shard is started anew: it fills the stream again if the
        database has lost that it was filled.
        """
        for wallet_id in self.database.wallets:
            self.tables.catch_up(wallet_id)
        host = self.deployments[0].hosts[0]
        if host.process is not None and host.process.alive:
            host.process.kill()
        self.start_shard(self.deployments[0], 0)

    # -- parts ------------------------------------------------------------------------------------

    def client(self, name: str) -> Process:
        return self._process(name)

    async def answer_or_none(
        self,
        client: Process,
        ingress: Process,
        work: Callable[[], Awaitable[T]],
        *,
        timeout_s: float,
    ) -> T | None:
        """The ingress's response in time; None if there was none."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.network.call(client, ingress, work)
        except (Lost, TimeoutError, ReadUnavailable):
            return None

    def _process(self, name: str) -> Process:
        process = Process(self.loop, name)
        self.processes.append(process)
        return process

    def _connection(self, use: str, probabilities: FaultProbabilities) -> Connection:
        connection = Connection(
            self.loop,
            self.postgres,
            probabilities,
            SeededRandom(f"{use} {len(self.processes)} {self.plan.seed}"),
            timeout_s=self.plan.statement_timeout_s,
        )
        self._database_connections.append(connection)
        return connection

    def _nats_connection(self, use: str) -> Connection:
        return Connection(
            self.loop,
            self.nats,
            self.stream_faults,
            SeededRandom(f"{use} {len(self.processes)} {self.plan.seed}"),
            timeout_s=self.plan.statement_timeout_s,
        )

    @property
    def failures(self) -> list[BaseException]:
        """Unexpected exceptions."""
        return [error for process in self.processes for error in process.failures]


class _Transport:
    """Implements `ShardTransport`: calls across the simulated network."""

    def __init__(self, world: World, deployment: Deployment, ingress: Process) -> None:
        self._world = world
        self._deployment = deployment
        self._ingress = ingress

    async def call(self, shard: int, payload: bytes) -> bytes:
        """Like `FailoverTransport`: while a shard is unreachable, the next one is called."""
        hosts = self._deployment.hosts
        broken = self._world.network.broken_share > 0.0
        start = shard + (broken and self._world.seeded_random.happens(0.5))
        for number in range(start, start + len(hosts)):
            host = hosts[number % len(hosts)]
            if host.process is not None and host.shard is not None and host.process.alive:
                return await self._call(host.process, host.shard, payload)
        raise ShardUnreachable("no actor of any name yet", delivered=False)

    async def _call(self, process: Process, actor: Shard, payload: bytes) -> bytes:
        try:
            return await self._world.network.call(
                self._ingress, process, partial(_submit, actor, payload), may_break=True
            )
        except Lost as lost:
            raise ShardUnreachable(f"{lost} died", delivered=True) from lost


async def _submit(shard: Shard, payload: bytes) -> bytes:
    return encode_replies(await shard.submit(decode_submissions(payload)))
