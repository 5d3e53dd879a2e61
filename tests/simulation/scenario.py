"""Runs one seed to its end and checks it."""

import asyncio
import hashlib
import logging
import random as global_random
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

import msgspec
import structlog

from tests.simulation.clients import Client
from tests.simulation.evidence import evidence_of
from tests.simulation.loop import SimulatedLoop, run
from tests.simulation.lost_commits import LostCommits
from tests.simulation.lost_history import chain_failures, check_histories
from tests.simulation.nemesis import Nemesis
from tests.simulation.run_config import RunConfig, config_for_seed
from tests.simulation.world import World
from tests.support.client_state import SharedClientState
from verification.facts import Facts
from verification.violations import Violation

_STREAM_CHECKED_S: Final = 30.0
"""Simulated time within which each relay has checked whether the stream lost events."""

_DRAIN_S_MAX: Final = 900.0
"""Simulated time within which everything must be published and projected."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run. ``digest`` covers the whole history: equal digests, equal runs."""

    seed: int
    violations: list[Violation]
    failures: list[str]
    """Failures other than rule violations: exceptions, or a run that never becomes idle."""
    digest: str
    attempts: int
    events: int
    steps: int
    faults_done: list[str]
    losses: list[LostCommits]
    """What failovers took back."""
    evidence: Facts

    @property
    def ok(self) -> bool:
        return not self.violations and not self.failures


class NotDrained(Exception):
    """The faults are over but the service does not become idle."""


Make = type[World]


def run_seed(seed: int, *, make: Make = World) -> Outcome:
    """Run ``seed`` and check the result. A mutation is passed as ``make``."""
    plan = config_for_seed(seed)
    loop = SimulatedLoop(Random(f"loop {seed}"), shuffle_within=plan.shuffle_within)
    world = make(loop, plan)
    state = SharedClientState()
    nemesis = Nemesis(world)
    failures: list[str] = []
    with _is_idle(), _seeded(seed):
        try:
            run(loop, _run(world, state, nemesis, plan))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the seed's outcome
            failures.append(f"{type(error).__name__}: {error}")
    failures += [f"{type(error).__name__}: {error}" for error in world.failures]
    evidence = evidence_of(world, state)
    failures += chain_failures(world)
    return Outcome(
        seed=seed,
        violations=list(check_histories(world, evidence)),
        failures=failures,
        digest=hashlib.sha256(msgspec.json.encode(evidence)).hexdigest(),
        attempts=len(state.history),
        events=len(world.database.events),
        steps=loop.ticks,
        faults_done=nemesis.done,
        losses=world.losses,
        evidence=evidence,
    )


async def _run(world: World, state: SharedClientState, nemesis: Nemesis, plan: RunConfig) -> None:
    world.start()
    clients = [Client(world, state, number).start() for number in range(plan.clients)]
    await asyncio.gather(nemesis.start(), return_exceptions=True)
    nemesis.heal()
    await asyncio.gather(*clients, return_exceptions=True)
    await _wait_idle(world)


async def _wait_idle(world: World) -> None:
    """Wait until everything is published and projected."""
    loop = world.loop
    # Late requests may still be in flight to a server.
    await asyncio.sleep(3 * world.plan.statement_timeout_s)
    if world.plan.store_losses:
        await asyncio.sleep(_STREAM_CHECKED_S)
    until = loop.time() + _DRAIN_S_MAX
    while not _drained(world):
        if loop.time() > until:
            rows = sum(map(len, world.database.outbox.values()))
            raise NotDrained(
                f"{rows} outbox rows, {len(world.database.expiries)} holds to expire, "
                f"projections {_lag(world)} events behind, stream "
                f"{'filled' if _is_backfilled(world) else 'not filled'}"
            )
        await asyncio.sleep(0.5)


def _drained(world: World) -> bool:
    database = world.database
    idle = not database.outbox and not database.expiries
    return idle and _is_backfilled(world) and _lag(world) == 0


def _is_backfilled(world: World) -> bool:
    return world.stream.exists and world.database.backfilled_incarnation == world.stream.name


def _lag(world: World) -> int:
    """Events that the projections lack; those of a lost history count, too."""
    projected = world.tables.wallets
    return sum(
        abs(wallet.version - (projected[one].version if one in projected else 0))
        for one, wallet in world.database.wallets.items()
    )


@contextmanager
def _is_idle() -> Iterator[None]:
    """Disable logging: injected faults cause many warnings."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random generator, from which libraries draw their back-off."""
    state = global_random.getstate()
    global_random.seed(seed)
    try:
        yield
    finally:
        global_random.setstate(state)
