"""Latency while the number of shards changes, without the start of processes.

    python -m bench.handover [--to 6] [--rate 50] [--cold]

`bench.reshard` measures the operator's command. On a machine with few cores, most of what clients
notice of it is the CPU that new processes take to start. Here all shards are processes that run
already: those of the old ring and of the new one, on servers of their own. The ingress is in this
process: two dispatchers, as of two replicas, which change to the new ring one after the other.
``--cold``: without warming up shards and connections first.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console

from actors.dispatch.dispatcher import Dispatcher, DispatcherLimits
from actors.rpc.client import RpcClient, connect
from actors.rpc.failover import FailoverTransport
from actors.rpc.keepalive import Heartbeat
from actors.rpc.messages import Applied
from actors.rpc.server import RpcEndpoint
from actors.shard.process import limits_from
from bench.reshard import phase
from migrations.migrate import upgrade
from runtime.settings import Settings
from tests.support.ids import new_id
from tests.support.servers import nats_server, postgres_server
from tests.support.steady_load import RequestOutcome
from tests.support.write_side import create_wallet, debit
from wallet.commands import Command, CommandItem, CommandRequest
from wallet.ids import WalletId

_WALLETS: Final = 128
_BETWEEN_REPLICAS_S: Final = 3.0
"""How long a replica takes to start, until the next one is replaced."""
_COLD: Final = "BENCH_COLD_SHARD"

_SHARD: Final = f"""
import asyncio, os, sys
import msgspec
from actors.journal.postgres import PostgresJournal
from actors.shard.process import ShardProcess
from runtime.settings import Settings

async def nothing(journal): pass

async def main():
    if os.environ["{_COLD}"]:
        PostgresJournal.warm_up = nothing
    shard = ShardProcess(int(sys.argv[1]), Settings())
    print(msgspec.json.encode(await shard.listen("127.0.0.1")).decode(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def running_shards(settings: Settings, *, cold: bool) -> AsyncIterator[list[RpcEndpoint]]:
    """A process per shard of ``settings``."""
    variables = {
        f"WALLET_{name.upper()}": str(getattr(settings, name))
        for name in ("database_url", "nats_url", "shard_count", "log_level")
    }
    environment = {**os.environ, **variables, _COLD: "1" if cold else ""}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _SHARD,
            str(shard),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        for shard in range(settings.shard_count)
    ]
    try:
        endpoints = []
        for process in processes:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            endpoints.append(msgspec.json.decode(line, type=RpcEndpoint))
        yield endpoints
    finally:
        for process in processes:
            process.kill()
            await process.wait()


async def replica(settings: Settings, shards: Sequence[RpcEndpoint], *, cold: bool) -> Dispatcher:
    """The write path of an ingress replica."""

    async def to_shard(shard: int) -> RpcClient:
        return await connect(shards[shard], limits_from(Heartbeat, settings))

    transport = FailoverTransport(to_shard, shard_count=len(shards))
    if not cold:
        await transport.warm_up()
    limits = limits_from(DispatcherLimits, settings, shard_count=len(shards))
    return Dispatcher(transport, limits)


async def submit(dispatcher: Dispatcher, wallet_id: WalletId, command: Command) -> None:
    """Raises AssertionError: it was not applied."""
    request = CommandRequest(
        wallet_id=wallet_id,
        items=(CommandItem(command=command, idempotency=None),),
        is_batch=False,
        request_id=new_id(),
        timeout_s=10.0,
    )
    answer = await dispatcher.submit(request)
    assert isinstance(answer, Applied), answer


class OpenLoop:
    """Debits at a fixed rate, through the replicas in turn."""

    def __init__(self, replicas: list[Dispatcher], rate: float) -> None:
        self.replicas = replicas
        self.outcomes: list[RequestOutcome] = []
        self._interval_s = 1 / rate
        self._wallets = [WalletId(new_id()) for _ in range(_WALLETS)]

    async def create_wallets(self) -> None:
        for wallet_id in self._wallets:
            await submit(self.replicas[0], wallet_id, create_wallet(wallet_id))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            begun = time.monotonic()
            for number in count():
                due_s = begun + number * self._interval_s
                await asyncio.sleep(due_s - time.monotonic())
                group.create_task(self._send(number, due_s))

    async def _send(self, number: int, due_s: float) -> None:
        # Each wallet through both replicas in turn: two shards of two rings write it in turn.
        dispatcher = self.replicas[(number + number // _WALLETS) % len(self.replicas)]
        await submit(dispatcher, self._wallets[number % _WALLETS], debit())
        took_s = time.monotonic() - due_s
        self.outcomes.append(RequestOutcome(due_s=due_s, took_s=took_s, failures=()))


async def measure(settings: Settings, *, to: int, rate: float, seconds: float, cold: bool) -> Any:
    """Change from the shards of ``settings`` to ``to`` shards, under load."""
    larger = settings.model_copy(update={"shard_count": to})
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        old = await enter(running_shards(settings, cold=cold))
        new = await enter(running_shards(larger, cold=cold))
        load = OpenLoop([await replica(settings, old, cold=False) for _ in range(2)], rate)
        await load.create_wallets()
        running = asyncio.create_task(load.run())
        await asyncio.sleep(2)
        began_s = time.monotonic()
        await asyncio.sleep(seconds)
        changed_s = time.monotonic()
        for number in range(2):
            load.replicas[number] = await replica(larger, new, cold=cold)
            await asyncio.sleep(_BETWEEN_REPLICAS_S)
        done_s = time.monotonic()
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        of = partial(phase, load.outcomes)
        return {
            "shards": [settings.shard_count, to],
            "requests_per_s": rate,
            "warm": not cold,
            "before": of(began_s, changed_s),
            "during": of(changed_s, done_s),
            "after": of(done_s, done_s + seconds),
        }


def main(
    to: Annotated[int, typer.Option(help="Shards afterwards; there are 2 before.")] = 6,
    rate: Annotated[float, typer.Option(help="Requests per second.")] = 50.0,
    seconds: Annotated[float, typer.Option(help="Duration of the load before and after.")] = 5.0,
    cold: Annotated[bool, typer.Option(help="Without warming up.")] = False,
) -> None:
    """Measure latency while the number of shards changes, without the start of processes."""
    with postgres_server(use_docker=False) as url, nats_server(use_docker=False) as nats_url:
        upgrade(url)
        settings = Settings(
            _env_file=None, database_url=url, nats_url=nats_url, shard_count=2, log_level="ERROR"
        )
        found = asyncio.run(measure(settings, to=to, rate=rate, seconds=seconds, cold=cold))
    Console().print_json(data=found)


if __name__ == "__main__":
    typer.run(main)
