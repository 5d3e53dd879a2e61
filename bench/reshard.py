"""Latency and errors of clients while the number of shards changes.

    python -m bench.reshard [--to 3] [--rate 100]

Starts a stack of its own, sends transfers at a fixed rate into wallets of all shards, changes the
number with `WALLET_SHARD_COUNT=N wallet deploy api` as an operator would, and compares the time
before, during and after. Latency counts from the moment when a request was due, so a stall counts
for every request that was due in it. Each request has an idempotency key and is retried until it
succeeds; at the end every balance must match the responses.

The load uses a connection of few instructions and a thread of its own with a raised priority: it
runs on the cores of what it measures, and a slow client would look like a slow service.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final

import httpx
import msgspec
import typer
import uuid6
from rich.console import Console

from actors.dispatch.ring import ring_of
from bench import results
from bench.generators.keyed import KeyedLoad
from bench.generators.latency import percentile
from bench.machine import commit, this_machine
from bench.service import Service, own_stack
from bench.wallets import create_wallets
from tests.support.steady_load import RequestOutcome
from wallet.ids import WalletId

console = Console()

_WALLETS: Final = 128
_COMMAND_TIMEOUT_S: Final = 180.0


def moved_share(before: int, after: int, wallets: int = 100_000) -> float:
    """Share of all wallets that another shard owns afterwards."""
    old, new = ring_of(before), ring_of(after)
    ids = [WalletId(str(uuid6.uuid7())) for _ in range(wallets)]
    return sum(old.shard_of(one) != new.shard_of(one) for one in ids) / wallets


def phase(sent: Sequence[RequestOutcome], from_s: float, until_s: float) -> dict[str, Any]:
    """Latencies and failures of the requests that were due in that time."""
    some = [one for one in sent if from_s <= one.due_s < until_s]
    took_ms = sorted(1_000 * one.took_s for one in some)
    return {
        "seconds": round(until_s - from_s, 1),
        "requests": len(some),
        "failed_attempts": sum(len(one.failures) for one in some),
        "p50_ms": round(percentile(took_ms, 50), 1),
        "p99_ms": round(percentile(took_ms, 99), 1),
        "longest_ms": round(took_ms[-1], 1) if took_ms else None,
    }


def change(service: Service, shards: int) -> None:
    """The operator's command."""
    assert service.home is not None
    subprocess.run(
        [sys.executable, "-c", "from deploy.cli.main import main; main()", "deploy", "api"],
        env={
            **os.environ,
            "WALLET_HOME": str(service.home.root),
            "WALLET_HTTP_PORT": service.http_url.rpartition(":")[2],
            "WALLET_SHARD_COUNT": str(shards),
        },
        stdout=subprocess.DEVNULL,
        timeout=_COMMAND_TIMEOUT_S,
        check=True,
    )


def measure(service: Service, *, to: int, rate: float, quiet_s: float) -> dict[str, Any]:
    """Change the number of shards under load.

    Raises:
        AssertionError: something was lost or duplicated.
    """
    before = service.shard_count()
    wallets = asyncio.run(create_wallets(service, _WALLETS))
    load = KeyedLoad(service.http_url, wallets, rate)
    load.start()
    time.sleep(2)  # connections and caches
    began_s = time.monotonic()
    time.sleep(quiet_s)
    changed_s = time.monotonic()
    change(service, to)
    done_s = time.monotonic()
    time.sleep(quiet_s)
    ended_s = time.monotonic()
    load.stop()
    assert service.shard_count() == to
    assert balances(service, wallets) == {one: f"{load.acknowledged[one]}.00" for one in wallets}
    sent = load.outcomes
    return {
        "shards": [before, to],
        "requests_per_s": rate,
        "wallets_moved": round(moved_share(before, to), 3),
        "command_s": round(done_s - changed_s, 1),
        "before": phase(sent, began_s, changed_s),
        "during": phase(sent, changed_s, done_s),
        "after": phase(sent, done_s, ended_s),
        "failures": sorted({why for one in sent for why in one.failures}),
        "generator_late_by_ms": round(1_000 * load.longest_lag_s, 1),
    }


def balances(service: Service, wallets: Sequence[str]) -> dict[str, str]:
    """What the wallets hold, from the shards."""
    with httpx.Client(base_url=service.http_url, timeout=30, trust_env=False) as http:
        return {
            wallet: str(
                http.get(f"/v1/wallet/{wallet}", params={"consistency": "strong"})
                .raise_for_status()
                .json()["balance"]
            )
            for wallet in wallets
        }


def main(
    to: Annotated[int, typer.Option(help="Shards afterwards; the stack starts with 2.")] = 3,
    rate: Annotated[float, typer.Option(help="Requests per second.")] = 100.0,
    seconds: Annotated[float, typer.Option(help="Duration of the load before and after.")] = 10.0,
) -> None:
    """Measure latency and errors while the number of shards changes."""
    with own_stack() as service:
        found = measure(service, to=to, rate=rate, quiet_s=seconds)
    document = {"commit": commit(), "machine": msgspec.to_builtins(this_machine()), **found}
    results.write(document, results.FOLDER / "resize.json")
    console.print_json(data=found)


if __name__ == "__main__":
    typer.run(main)
