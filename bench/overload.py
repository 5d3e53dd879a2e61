"""Three times the peak load: goodput, and time to recovery.

    python -m bench.overload        # starts a stack of its own, about two minutes

Batches of a hundred transfers to many wallets, so that the shards' queues, not the generator, are
the bottleneck. Single transfers run as probes, as small clients would.
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
"""Transfers per request of the overload."""
TIMES: Final = 3.0
"""Offered load, as a multiple of the peak."""

_WALLETS: Final = 256
_PEAK_CONNECTIONS: Final = (4, 16, 48)
_OVERLOAD_CONNECTIONS: Final = 512
_PROBE_PAUSE_S: Final = 0.05
_RECOVERED_S: Final = 1.0
"""The service has recovered after this time without a refused or slow probe."""
_SLOW_FACTOR: Final = 5.0
_RECOVERY_S_MAX: Final = 30.0


class Probe(msgspec.Struct, frozen=True):
    """One transfer. Times are of the monotonic clock."""

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
    """Samples the memory of the service's processes once per second."""

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
    """The result."""

    peak_transfers_per_s: float
    offered_transfers_per_s: float
    goodput_transfers_per_s: float
    answers: dict[str, int]
    """Responses to the overload, by status."""
    admitted_probe_p50_ms: float
    admitted_probe_p99_ms: float
    quiet_probe_p99_ms: float
    """Before the overload."""
    probes: dict[str, int]
    refused_without_retry_after: int
    memory_before_mb: float
    memory_during_mb: float
    recovery_s: float | None
    """From the last request of the overload to recovery; None: not in time."""

    @property
    def goodput_share(self) -> float:
        return self.goodput_transfers_per_s / self.peak_transfers_per_s


async def measure(service: Service, folder: Path, seconds: float, console: Console) -> Overload:
    wallets = await create_wallets(service, 2 * _WALLETS)
    overloaded, quiet = wallets[:_WALLETS], wallets[_WALLETS:]
    script = RequestScript(
        templates=[batch_template(wallet) for wallet in overloaded],
        mode=ResponseMode.ITEMS,
        items_per_request=ITEMS,
    )
    probes, memory = LatencyProbes(service.http_url, quiet), Memory(service)
    try:
        await send(service, script, folder, connections=8, seconds=seconds / 3)  # warm
        calm = time.monotonic()
        await asyncio.sleep(3.0)
        quiet_p99 = _percentile(probes.between(calm, time.monotonic()), 0.99)
        peak = 0.0
        for connections in _PEAK_CONNECTIONS:
            done = await send(service, script, folder, connections=connections, seconds=seconds / 2)
            peak = max(peak, done.items_accepted / done.duration_s)
            console.print(
                f"{connections} connections: {done.items_accepted / done.duration_s:,.0f}/s"
            )
        await asyncio.sleep(2.0)
        began = time.monotonic()
        before_mb = memory.most(began - 3.0, began)
        overload = await send(
            service,
            script,
            folder,
            connections=_OVERLOAD_CONNECTIONS,
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
        goodput_transfers_per_s=round(overload.items_accepted / overload.duration_s),
        answers=dict(overload.statuses) | overload.errors,
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
    script: RequestScript,
    folder: Path,
    *,
    connections: int,
    seconds: float,
    rate: float | None = None,
) -> LoadResult:
    path = folder / "script"
    script.write(path)
    return await generate(
        LoadSpec(
            url=service.http_url,
            script_file=str(path),
            mode=script.mode,
            connections=connections,
            duration_s=seconds,
            key_prefix="overload",
            rate=rate,
        ),
        wrk_allowed=False,
    )


async def _recovery(probes: LatencyProbes, over: float, quiet_p99: float) -> float | None:
    """Seconds from ``over`` to the start of the first second without failed or slow probes."""
    slow_s = max(_SLOW_FACTOR * quiet_p99, 0.1)
    while time.monotonic() < over + _RECOVERY_S_MAX:
        await asyncio.sleep(0.1)
        bad = [
            one.ended
            for one in probes.done
            if one.ended > over and (one.status != 201 or one.took_s > slow_s)
        ]
        recovered_at = max(bad, default=over)
        good = [one for one in probes.done if one.began >= recovered_at]
        if good and good[-1].ended - recovered_at > _RECOVERED_S:
            return round(max(recovered_at - over, 0.0), 1)
    return None


def _percentile(probes: Sequence[Probe], share: float) -> float:
    times = sorted(one.took_s for one in probes)
    return times[min(int(share * len(times)), len(times) - 1)] if times else 0.0


def batch_template(wallet: str) -> RequestTemplate:
    item = {"type": "debit", "amount": "1.00", "status": "completed"}
    body = json.dumps({"items": [item] * ITEMS}, separators=(",", ":"))
    return RequestTemplate(method="POST", path=f"/v1/wallet/{wallet}/transfers/batch", body=body)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of the overload")
    options = parser.parse_args()
    console = Console(stderr=True)
    with own_stack() as service, tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(service, Path(folder), options.seconds, console))
    print(msgspec.json.format(msgspec.json.encode(found)).decode())
    print(f"goodput: {found.goodput_share:.0%} of the peak")
    return 0


if __name__ == "__main__":
    sys.exit(main())
