"""Three times as much as the service can do: what it still does, and how soon it is well again.

    python -m bench.overload        # starts a stack of its own, about two minutes

Batches of a hundred transfers to many wallets, so that the shards' queues, not the generator, are
what is full. Single transfers go along as probes: they are small clients beside the flood.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import msgspec
from rich.console import Console

from bench.generators.generate import generate
from bench.generators.load_spec import LoadSpec
from bench.generators.request_script import RequestScript, RequestTemplate, ResponseMode
from bench.generators.result import LoadResult
from bench.processes import memory_of
from bench.service import Service, own_stack
from bench.wallets import create_wallets

ITEMS: Final = 100
"""Transfers in a request of the flood."""
TIMES: Final = 3.0
"""How many times the peak is offered."""

_WALLETS: Final = 256
_PEAK_CONNECTIONS: Final = (4, 16, 48)
_FLOOD_CONNECTIONS: Final = 512
_PROBE_PAUSE_S: Final = 0.05
_WELL_S: Final = 1.0
"""So long without a refused or slow probe, and the service is well."""
_SLOW_FACTOR: Final = 5.0
_RECOVERY_S_MAX: Final = 30.0


class Probe(msgspec.Struct, frozen=True):
    """One single transfer. Times of the monotonic clock."""

    began: float
    ended: float
    status: int
    retry_after: str

    @property
    def took_s(self) -> float:
        return self.ended - self.began


class LatencyProbes:
    """Single transfers to wallets of their own, one after the other, in the background."""

    def __init__(self, url: str, wallets: Sequence[str]) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=70, trust_env=False)
        self._wallets = wallets
        self.done: list[Probe] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while True:
            number += 1
            wallet = self._wallets[number % len(self._wallets)]
            began = time.monotonic()
            try:
                answer = await self._http.post(
                    f"/v1/wallet/{wallet}/transfers/debit",
                    json={"amount": "1", "status": "completed"},
                )
            except httpx.TransportError:
                self.done.append(Probe(began, time.monotonic(), 0, ""))
            else:
                retry_after = answer.headers.get("retry-after", "")
                self.done.append(Probe(began, time.monotonic(), answer.status_code, retry_after))
            await asyncio.sleep(_PROBE_PAUSE_S)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._http.aclose()

    def between(self, since: float, until: float) -> list[Probe]:
        return [one for one in self.done if one.began >= since and one.ended <= until]


class Memory:
    """What the service's processes hold, once a second."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.readings: list[tuple[float, float]] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            held = await asyncio.to_thread(lambda: memory_of(self._service.processes()))
            # Not Postgres: its shared buffers fill with whatever is read and written.
            total = sum(size for part, size in held.items() if part != "postgres")
            self.readings.append((time.monotonic(), total / 1e6))
            await asyncio.sleep(1.0)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def most(self, since: float, until: float) -> float:
        """Megabytes."""
        return max((size for at, size in self.readings if since <= at <= until), default=0.0)


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    peak_transfers_per_s: float
    offered_transfers_per_s: float
    goodput_transfers_per_s: float
    answers: dict[str, int]
    """Of the flood, by status."""
    admitted_probe_p50_ms: float
    admitted_probe_p99_ms: float
    quiet_probe_p99_ms: float
    """Before the flood."""
    probes: dict[str, int]
    refused_without_retry_after: int
    memory_before_mb: float
    memory_during_mb: float
    recovery_s: float | None
    """From the flood's last request until probes are well; None: not in time."""

    @property
    def goodput_share(self) -> float:
        return self.goodput_transfers_per_s / self.peak_transfers_per_s


async def measure(service: Service, folder: Path, seconds: float, console: Console) -> Overload:
    wallets = await create_wallets(service, 2 * _WALLETS)
    flooded, quiet = wallets[:_WALLETS], wallets[_WALLETS:]
    deck = RequestScript(
        templates=[batch_card(wallet) for wallet in flooded],
        mode=ResponseMode.ITEMS,
        items_per_request=ITEMS,
    )
    probes, memory = LatencyProbes(service.http_url, quiet), Memory(service)
    try:
        await send(service, deck, folder, connections=8, seconds=seconds / 3)  # warm
        calm = time.monotonic()
        await asyncio.sleep(3.0)
        quiet_p99 = _percentile(probes.between(calm, time.monotonic()), 0.99)
        peak = 0.0
        for connections in _PEAK_CONNECTIONS:
            done = await send(service, deck, folder, connections=connections, seconds=seconds / 2)
            peak = max(peak, done.items_accepted / done.duration_s)
            console.print(
                f"{connections} connections: {done.items_accepted / done.duration_s:,.0f}/s"
            )
        await asyncio.sleep(2.0)
        began = time.monotonic()
        before_mb = memory.most(began - 3.0, began)
        flood = await send(
            service,
            deck,
            folder,
            connections=_FLOOD_CONNECTIONS,
            seconds=seconds,
            rate=TIMES * peak / ITEMS,
        )
        over = began + seconds
        recovery_s = await _recovery(probes, over, quiet_p99)
    finally:
        await probes.stop()
        await memory.stop()
    during = probes.between(began, over)
    admitted = [one for one in during if one.status == 201]
    return Overload(
        peak_transfers_per_s=round(peak),
        offered_transfers_per_s=round(TIMES * peak),
        goodput_transfers_per_s=round(flood.items_accepted / flood.duration_s),
        answers=dict(flood.statuses) | flood.errors,
        admitted_probe_p50_ms=round(_percentile(admitted, 0.5) * 1e3, 1),
        admitted_probe_p99_ms=round(_percentile(admitted, 0.99) * 1e3, 1),
        quiet_probe_p99_ms=round(quiet_p99 * 1e3, 1),
        probes={str(status): n for status, n in Counter(one.status for one in during).items()},
        refused_without_retry_after=sum(
            one.status in (429, 503) and not one.retry_after for one in during
        ),
        memory_before_mb=round(before_mb),
        memory_during_mb=round(memory.most(began, over)),
        recovery_s=recovery_s,
    )


async def send(
    service: Service,
    deck: RequestScript,
    folder: Path,
    *,
    connections: int,
    seconds: float,
    rate: float | None = None,
) -> LoadResult:
    path = folder / "deck"
    deck.write(path)
    return await generate(
        LoadSpec(
            url=service.http_url,
            deck=str(path),
            mode=deck.mode,
            connections=connections,
            duration_s=seconds,
            key_prefix="overload",
            rate=rate,
        ),
        wrk_allowed=False,
    )


async def _recovery(probes: LatencyProbes, over: float, quiet_p99: float) -> float | None:
    """When the first probe of a well second began, after ``over``."""
    slow_s = max(_SLOW_FACTOR * quiet_p99, 0.1)
    while time.monotonic() < over + _RECOVERY_S_MAX:
        await asyncio.sleep(0.1)
        bad = [
            one.ended
            for one in probes.done
            if one.ended > over and (one.status != 201 or one.took_s > slow_s)
        ]
        well_since = max(bad, default=over)
        good = [one for one in probes.done if one.began >= well_since]
        if good and good[-1].ended - well_since > _WELL_S:
            return round(max(well_since - over, 0.0), 1)
    return None


def _percentile(probes: Sequence[Probe], share: float) -> float:
    times = sorted(one.took_s for one in probes)
    return times[min(int(share * len(times)), len(times) - 1)] if times else 0.0


def batch_card(wallet: str) -> RequestTemplate:
    item = {"type": "debit", "amount": "1.00", "status": "completed"}
    body = json.dumps({"items": [item] * ITEMS}, separators=(",", ":"))
    return RequestTemplate(method="POST", path=f"/v1/wallet/{wallet}/transfers/batch", body=body)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long the flood lasts")
    options = parser.parse_args()
    console = Console(stderr=True)
    with own_stack() as service, tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(service, Path(folder), options.seconds, console))
    print(msgspec.json.format(msgspec.json.encode(found)).decode())
    print(f"goodput: {found.goodput_share:.0%} of the peak")
    return 0


if __name__ == "__main__":
    sys.exit(main())
