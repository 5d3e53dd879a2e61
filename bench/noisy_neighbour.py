"""Latency of a wallet while another wallet of its shard is overloaded (noisy neighbour)."""

import asyncio
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from actors.dispatch.ring import ring_of
from bench.audit import AuditFailed, ConsistencyAudit, expected_of
from bench.drain import wait_until_drained
from bench.generators.generate import generate
from bench.generators.load_spec import LoadSpec
from bench.generators.request_script import RequestScript
from bench.generators.result import LoadResult
from bench.measure import Bench
from bench.scenarios import BY_NAME, script_of
from bench.wallets import create_wallets
from wallet.ids import WalletId

OVERLOAD_CONNECTIONS: Final = 256
PROBE_RATE: Final = 50.0
"""Requests/s to the other wallet: a negligible load, enough for a p99 within seconds."""

_PROBE_CONNECTIONS: Final = 64
_CANDIDATES: Final = 64
_OVERLOAD_LEAD_S: Final = 1.0
_OVERLOAD_TAIL_S: Final = 2.0


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of the other wallet, from each request's intended start."""

    alone_p50_ms: float
    alone_p99_ms: float
    contended_p50_ms: float
    contended_p99_ms: float
    overload_requests_per_s: float

    @property
    def p99_ratio(self) -> float:
        return self.contended_p99_ms / self.alone_p99_ms


async def measure_neighbour(bench: Bench, duration_s: float) -> Neighbour:
    """Probe a wallet at a low fixed rate: alone, then while another wallet is overloaded.

    Raises:
        AuditFailed, LoadFailed: see `Bench.measure`.
    """
    overloaded, other = await _two_of_one_shard(bench)
    with tempfile.TemporaryDirectory(prefix="wallet-bench-") as folder:
        probe = _load(bench, other, Path(folder), _PROBE_CONNECTIONS, duration_s, PROBE_RATE)
        overload_s = _OVERLOAD_LEAD_S + duration_s + _OVERLOAD_TAIL_S
        overload = _load(bench, overloaded, Path(folder), OVERLOAD_CONNECTIONS, overload_s, None)
        # Don't measure the disk writes of the previous load.
        await bench.ledger.checkpoint()
        (alone,) = await _audited(bench, {other: probe})
        await bench.ledger.checkpoint()
        contended, overloading = await _audited(bench, {other: probe, overloaded: overload})
    return Neighbour(
        alone_p50_ms=round(alone.latency.p50_ms, 3),
        alone_p99_ms=round(alone.latency.p99_ms, 3),
        contended_p50_ms=round(contended.latency.p50_ms, 3),
        contended_p99_ms=round(contended.latency.p99_ms, 3),
        overload_requests_per_s=round(overloading.accepted / overloading.duration_s, 1),
    )


async def _two_of_one_shard(bench: Bench) -> tuple[str, str]:
    ring = ring_of(bench.service.shard_count())
    wallets = await create_wallets(bench.service, _CANDIDATES)
    shard = ring.shard_of(WalletId(wallets[0]))
    other = next(one for one in wallets[1:] if ring.shard_of(WalletId(one)) == shard)
    return wallets[0], other


def _load(
    bench: Bench,
    wallet: str,
    folder: Path,
    connections: int,
    duration_s: float,
    rate: float | None,
) -> LoadSpec:
    script: RequestScript = script_of(BY_NAME["hot_unary"], [wallet])
    return bench.load_of(
        script, connections=connections, duration_s=duration_s, folder=folder, rate=rate
    )


async def _audited(bench: Bench, loads: dict[str, LoadSpec]) -> list[LoadResult]:
    """Run loads concurrently, one per wallet; a fixed-rate one starts after the others."""
    await wait_until_drained(bench.ledger, list(loads))
    audits = {wallet: ConsistencyAudit(bench.ledger, bench.stream, [wallet]) for wallet in loads}
    for audit in audits.values():
        await audit.snapshot()
    lead_s = _OVERLOAD_LEAD_S if len(loads) > 1 else 0.0
    results = await asyncio.gather(
        *(_delayed(bench, load, lead_s if load.rate else 0.0) for load in loads.values())
    )
    await wait_until_drained(bench.ledger, list(loads))
    for (wallet, load), result in zip(loads.items(), results, strict=True):
        findings = await audits[wallet].mismatches(result, expected_of(result, load.mode))
        if findings:
            raise AuditFailed("neighbour", findings)
    return list(results)


async def _delayed(bench: Bench, load: LoadSpec, wait_s: float) -> LoadResult:
    await asyncio.sleep(wait_s)
    return await generate(load, wrk_allowed=bench.wrk_allowed)
