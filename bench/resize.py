"""What changing the number of shards costs clients while it happens.

    python -m bench.resize [--to 3] [--rate 160]

Starts a stack of its own, sends transfers at a fixed rate into wallets of all shards, changes the
number with `WALLET_SHARD_COUNT=N wallet deploy api` as an operator would, and compares the time
before, during and after. Latency counts from the moment when a request was due, so a stall is seen
by every request that fell into it. Each request has a key and is repeated until it succeeds; at the
end every balance must be what the client was told.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import uuid4

import httpx
import msgspec
import typer
from rich.console import Console

from actors.ring import ring_of
from bench import results
from bench.generators.latency import percentile
from bench.machine import commit, this_machine
from bench.service import Service, own_stack
from wallet.ids import WalletId

console = Console()

_CLIENTS: Final = 16
_WALLETS_A_CLIENT: Final = 8
_TIMEOUT_S: Final = 30.0
_COMMAND_TIMEOUT_S: Final = 180.0
_RETRY_S: Final = 0.02


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One request that succeeded."""

    due_s: float
    took_s: float
    """From the moment when it was due to its success, repetitions included."""
    failures: tuple[str, ...]
    """Why it had to be repeated."""


class Client(threading.Thread):
    """One connection: a transfer every ``interval_s``, to its own wallets in turn."""

    def __init__(self, url: str, *, interval_s: float, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.sent: list[Sent] = []
        self.told: dict[str, int] = {}
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT_S)
        self._interval_s = interval_s
        self._stopping = stopping
        for _ in range(_WALLETS_A_CLIENT):
            self.told[self._http.post("/v1/wallet", json={}).raise_for_status().json()["id"]] = 0

    def run(self) -> None:
        wallets, due_s, number = list(self.told), time.monotonic(), 0
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            self._put_in(wallets[number % len(wallets)], due_s)
            due_s, number = due_s + self._interval_s, number + 1

    def wrong(self) -> list[str]:
        """Wallets whose balance isn't what this client was told."""
        query = {"consistency": "strong"}
        found = {
            wallet: self._http.get(f"/v1/wallet/{wallet}", params=query).json()["balance"]
            for wallet in self.told
        }
        return [wallet for wallet, told in self.told.items() if found[wallet] != f"{told}.00"]

    def _put_in(self, wallet: str, due_s: float) -> None:
        key, failures = str(uuid4()), []
        while (failure := self._failure(wallet, key)) is not None:
            failures.append(failure)
            time.sleep(_RETRY_S)
        self.told[wallet] += 1
        took_s = time.monotonic() - due_s
        self.sent.append(Sent(due_s=due_s, took_s=took_s, failures=tuple(failures)))

    def _failure(self, wallet: str, key: str) -> str | None:
        try:
            answer = self._http.post(
                f"/v1/wallet/{wallet}/transfers/debit",
                json={"amount": "1.00", "status": "completed"},
                headers={"Idempotency-Key": key},
            )
        except httpx.TransportError as error:
            return type(error).__name__
        return None if answer.status_code == 201 else str(answer.status_code)


def moved_share(before: int, after: int, wallets: int = 100_000) -> float:
    """How many of all wallets another shard owns afterwards."""
    old, new = ring_of(before), ring_of(after)
    ids = [WalletId(str(uuid4())) for _ in range(wallets)]
    return sum(old.shard_of(one) != new.shard_of(one) for one in ids) / wallets


def phase(sent: Sequence[Sent], from_s: float, until_s: float) -> dict[str, Any]:
    """What clients saw of the requests that were due in that time."""
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
        [sys.executable, "-c", "from serve_app.cli import main; main()", "deploy", "api"],
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
        AssertionError: something was lost or doubled.
    """
    before = service.shard_count()
    stopping = threading.Event()
    clients = [
        Client(service.http_url, interval_s=_CLIENTS / rate, stopping=stopping)
        for _ in range(_CLIENTS)
    ]
    for client in clients:
        client.start()
    time.sleep(2)  # connections and caches
    began_s = time.monotonic()
    time.sleep(quiet_s)
    changed_s = time.monotonic()
    change(service, to)
    done_s = time.monotonic()
    time.sleep(quiet_s)
    ended_s = time.monotonic()
    stopping.set()
    for client in clients:
        client.join()
    assert service.shard_count() == to
    assert not any(client.wrong() for client in clients), "lost or doubled"
    sent = [one for client in clients for one in client.sent]
    return {
        "shards": [before, to],
        "requests_per_s": rate,
        "wallets_moved": round(moved_share(before, to), 3),
        "command_s": round(done_s - changed_s, 1),
        "before": phase(sent, began_s, changed_s),
        "during": phase(sent, changed_s, done_s),
        "after": phase(sent, done_s, ended_s),
        "failures": sorted({failure for one in sent for failure in one.failures}),
    }


def main(
    to: Annotated[int, typer.Option(help="Shards afterwards; the stack starts with 2.")] = 3,
    rate: Annotated[float, typer.Option(help="Requests per second.")] = 160.0,
    seconds: Annotated[float, typer.Option(help="Of load before and after.")] = 10.0,
) -> None:
    """Measure what changing the number of shards costs clients."""
    with own_stack() as service:
        found = measure(service, to=to, rate=rate, quiet_s=seconds)
    document = {"commit": commit(), "machine": msgspec.to_builtins(this_machine()), **found}
    results.write(document, results.FOLDER / "resize.json")
    console.print_json(data=found)


if __name__ == "__main__":
    typer.run(main)
