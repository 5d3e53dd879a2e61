"""The faults, one function each. Each returns after the fault has ended.

It returns the time from which recovery is measured: the kill itself, or the end of an outage.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Final

import msgspec
import psutil

from tests.chaos.stack import ChaosStack
from tests.support.postgres_proxy import DISK_FULL

Moment = int
"""A reading of the monotonic clock, in nanoseconds."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds."""

    postgres_stop: float = 20.0
    nats_stop: float = 60.0
    shard_pause: float = 15.0
    fault_s: float = 6.0
    """Duration of temporary faults."""


QUICK: Final = Scale(postgres_stop=4.0, nats_stop=6.0, shard_pause=6.0, fault_s=3.0)

Injection = Callable[[ChaosStack, Random, Scale], Awaitable[Moment]]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault, and what the service promises about it."""

    name: str
    what: str
    inject: Injection
    back_s: float | None = None
    """Every wallet accepts writes again within this time."""
    unharmed: bool = False
    """No write may fail or have an unknown outcome because of it."""
    quick: bool = False
    """Part of the quick run."""
    times: int = 1
    """Number of rounds in a full run."""
    several: bool = True
    """May be combined with other faults."""


def _now() -> Moment:
    return time.monotonic_ns()


def _kill(title: str) -> Injection:
    async def inject(stack: ChaosStack, random: Random, _scale: Scale) -> Moment:
        found = await asyncio.to_thread(stack.processes, title)
        assert found, f"no process has the title {title}"
        victim = random.choice(sorted(found, key=lambda one: one.pid))
        moment = _now()
        victim.kill()
        return moment

    return inject


async def _kill_postgres(stack: ChaosStack, random: Random, _scale: Scale) -> Moment:
    await asyncio.to_thread(stack.kill, "postgres")
    await asyncio.sleep(random.uniform(0.2, 3.0))
    await asyncio.to_thread(stack.start_postgres)
    return _now()


async def _stop_postgres(stack: ChaosStack, _random: Random, scale: Scale) -> Moment:
    return await _stop(stack, "postgres", scale.postgres_stop)


async def _stop(stack: ChaosStack, server: str, seconds: float) -> Moment:
    await asyncio.to_thread(stack.pause, server)
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(stack.resume, server)
    return _now()


async def _terminate(stack: ChaosStack, random: Random, _scale: Scale) -> Moment:
    for _ in range(3):
        await stack.terminate_connections()
        await asyncio.sleep(random.uniform(0.0, 0.5))
    return _now()


async def _lose_answers(stack: ChaosStack, random: Random, scale: Scale) -> Moment:
    for _ in range(6):
        stack.proxy.lose_answers += 1
        await asyncio.sleep(random.uniform(0.0, scale.fault_s / 3))
    stack.proxy.lose_answers = 0
    return _now()


async def _fill_disk(stack: ChaosStack, _random: Random, scale: Scale) -> Moment:
    stack.proxy.refuse_with = DISK_FULL
    await asyncio.sleep(scale.fault_s)
    stack.proxy.refuse_with = ""
    return _now()


async def _slow_postgres(stack: ChaosStack, _random: Random, scale: Scale) -> Moment:
    stack.proxy.slow_s = 0.2
    await asyncio.sleep(2 * scale.fault_s)
    stack.proxy.slow_s = 0.0
    return _now()


async def _kill_nats(stack: ChaosStack, random: Random, _scale: Scale) -> Moment:
    await asyncio.to_thread(stack.kill, "nats")
    await asyncio.sleep(random.uniform(0.2, 3.0))
    await asyncio.to_thread(stack.start_nats)
    return _now()


async def _stop_nats(stack: ChaosStack, _random: Random, scale: Scale) -> Moment:
    return await _stop(stack, "nats", scale.nats_stop)


async def _delete_stream(stack: ChaosStack, _random: Random, _scale: Scale) -> Moment:
    await stack.delete_stream()
    return _now()


def _deploy(**settings: str) -> Injection:
    async def inject(stack: ChaosStack, _random: Random, _scale: Scale) -> Moment:
        await stack.deploy(**settings)
        return _now()

    return inject


async def _pause_shard(stack: ChaosStack, random: Random, scale: Scale) -> Moment:
    """The successor takes over while the shard is stopped; then the old process resumes."""
    shards = await asyncio.to_thread(stack.processes, "ray::ShardActor")
    victim = random.choice(sorted(shards, key=lambda one: one.pid))
    moment = _now()
    victim.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(scale.shard_pause)
    finally:
        with suppress(psutil.NoSuchProcess):  # its replacement may have ended it
            victim.send_signal(signal.SIGCONT)
    return moment


FAULTS: Final[tuple[Fault, ...]] = (
    Fault(
        name="kill-shard",
        what="kill −9 of a shard actor",
        inject=_kill("ray::ShardActor"),
        back_s=3.0,
        unharmed=True,
        quick=True,
        times=3,
    ),
    Fault(
        name="kill-ingress",
        what="kill −9 of an ingress replica",
        inject=_kill("ray::ServeReplica:api:Ingress"),
        quick=True,
        times=2,
    ),
    Fault(
        name="kill-projection",
        what="kill −9 of a projection actor",
        inject=_kill("ray::ProjectionActor"),
        unharmed=True,
        quick=True,
        times=2,
    ),
    Fault(name="kill-haproxy", what="kill −9 of HAProxy", inject=_kill("haproxy"), back_s=3.0),
    Fault(
        name="kill-controller",
        what="kill −9 of the Serve controller",
        inject=_kill("ray::ServeController"),
        unharmed=True,
        times=2,
    ),
    Fault(
        name="postgres-kill",
        what="Postgres killed and started again",
        inject=_kill_postgres,
        back_s=2.0,
        quick=True,
        times=2,
    ),
    Fault(
        name="postgres-stop",
        what="Postgres stopped (SIGSTOP)",
        inject=_stop_postgres,
        back_s=2.0,
        quick=True,
    ),
    Fault(
        name="postgres-terminate",
        what="every connection to Postgres terminated, three times",
        inject=_terminate,
        back_s=2.0,
        times=2,
    ),
    Fault(
        name="postgres-lost-answer",
        what="responses to commits dropped, six times",
        inject=_lose_answers,
        back_s=2.0,
        quick=True,
        times=3,
    ),
    Fault(
        name="postgres-full",
        what="every commit refused with SQLSTATE 53100 (disk full) by the proxy",
        inject=_fill_disk,
        back_s=2.0,
        quick=True,
    ),
    Fault(
        name="postgres-slow",
        what="every statement 200 ms later",
        inject=_slow_postgres,
        back_s=2.0,
        unharmed=True,
    ),
    Fault(
        name="nats-kill",
        what="NATS killed and started again",
        inject=_kill_nats,
        unharmed=True,
        times=2,
    ),
    Fault(
        name="nats-stop",
        what="NATS stopped (SIGSTOP)",
        inject=_stop_nats,
        unharmed=True,
        quick=True,
    ),
    Fault(
        name="stream-delete",
        what="the stream deleted by hand",
        inject=_delete_stream,
        unharmed=True,
        quick=True,
        times=2,
    ),
    Fault(
        name="pause-shard",
        what="a shard stopped (SIGSTOP) until its successor has taken over, then continued",
        inject=_pause_shard,
        back_s=3.0,
    ),
    Fault(
        name="shards-3",
        what="redeployed with 3 shards in place of 2",
        inject=_deploy(WALLET_SHARD_COUNT="3"),
        several=False,
    ),
    Fault(
        name="redeploy",
        what="redeployed with another setting",
        inject=_deploy(WALLET_SHARD_COUNT="3", WALLET_DATABASE_STALL_TIMEOUT_S="2.1"),
        several=False,
    ),
    Fault(
        name="shards-2",
        what="redeployed with 2 shards in place of 3",
        inject=_deploy(WALLET_SHARD_COUNT="2"),
        several=False,
    ),
)
