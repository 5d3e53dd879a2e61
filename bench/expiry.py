"""Holds that are due within a minute: what other commands notice, and how late they expire.

    python -m bench.expiry                      # starts a stack of its own, about three minutes
    python -m bench.expiry --holds 1000000 --direct --at-most 180       # about six minutes

Creates the holds with times that are spread over the window: by batches over HTTP, or with
``--direct`` straight in the journal (`bench.hold_seed`). Then single transfers to other wallets run
as probes: before the window, and in it. The goal: their p99 at most doubles.

``--at-most``: seconds from the window's begin after which it ends, whatever is still due then.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import msgspec
from rich.console import Console

from bench.generators.request_script import RequestScript, RequestTemplate, ResponseMode
from bench.hold_seed import HoldBatch, seed
from bench.overload import LatencyProbes, Probe
from bench.service import Service, own_stack
from bench.wallets import create_wallets, send_counted

_BATCH: Final = 1_000
"""Holds per request."""
_WALLETS: Final = 200
_PROBE_WALLETS: Final = 64
_PROBES: Final = 4
"""Probes at a time."""
_CREATED_PER_S: Final = 2_000
"""Holds that even a slow machine creates."""
_BEFORE_S: Final = 20.0
"""How long the probes run before the window."""
_SETTLE_S: Final = 10.0
"""Between the last hold and the probes: what was created is published and projected."""

_DIRECTLY_PER_S: Final = 8_000
"""The same without HTTP, by two processes."""
_VACUUM_S: Final = 30.0

_LEFT: Final = "SELECT count(*) FROM transfer_expiries"
_OLDEST_S: Final = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(expires_at)), 0) FROM transfer_expiries
WHERE expires_at <= clock_timestamp()
"""
_VACUUM: Final = """
VACUUM (ANALYZE) wallets, wallet_events, transfers, transfer_expiries, wallet_projections,
    transfer_projections
"""
_LATE: Final = """
SELECT count(*), percentile_disc(ARRAY[0.5, 0.99, 1.0]) WITHIN GROUP
    (ORDER BY extract(epoch FROM settled_at - expires_at))
FROM transfers WHERE failure_reason = 'expired'
"""


class Expiry(msgspec.Struct, frozen=True, kw_only=True):
    """The result. Times of probes are in milliseconds."""

    holds: int
    window_s: float
    probes_before: int
    probes_during: int
    p50_before_ms: float
    p50_during_ms: float
    p99_before_ms: float
    p99_during_ms: float
    p99_ratio: float
    failed_probes: int
    expired: int
    late_p50_s: float
    """From a hold's time to its expiry."""
    late_p99_s: float
    late_max_s: float
    expired_per_s: float
    """Over the time in which holds were due."""
    still_due: int
    """When the measurement ended."""
    oldest_due_s: float
    """How late the oldest of these was then."""
    measured_s: float
    """From the window's begin."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    holds: int
    window_s: float
    is_direct: bool
    """Holds are created in the journal, without HTTP."""
    at_most_s: float
    """From the window's begin."""

    @property
    def lead_s(self) -> float:
        """From the first hold that is created to the window."""
        rate = _DIRECTLY_PER_S if self.is_direct else _CREATED_PER_S
        vacuum_s = _VACUUM_S if self.is_direct else 0.0
        return self.holds / rate + vacuum_s + _SETTLE_S + _BEFORE_S

    def batches(self, wallets: Sequence[str], starts: float) -> list[HoldBatch]:
        """The holds, whose times are spread evenly over the window."""
        first, interval_s = datetime.fromtimestamp(starts, UTC), self.window_s / self.holds
        return [
            HoldBatch(
                wallet_id=wallets[number // _BATCH % len(wallets)],
                first_due=first + timedelta(seconds=interval_s * number),
                interval_s=interval_s,
                count=_BATCH,
            )
            for number in range(0, self.holds, _BATCH)
        ]


async def _create(service: Service, batches: Sequence[HoldBatch], *, is_direct: bool) -> None:
    if not is_direct:
        script = RequestScript(
            templates=[_request(batch) for batch in batches],
            mode=ResponseMode.ITEMS,
            items_per_request=_BATCH,
        )
        created = await send_counted(service, script, len(script.templates))
        assert created.items_accepted == _BATCH * len(batches), created.errors
        return
    await asyncio.to_thread(seed, service.database_url, batches)
    database = await asyncpg.connect(service.database_url)
    try:
        # Else autovacuum does it while the probes run.
        for statement in (_VACUUM, "CHECKPOINT"):
            await database.execute(statement, timeout=300)
    finally:
        await database.close()


async def measure(service: Service, plan: Plan, console: Console) -> Expiry:
    """Create the holds and probe the service before and while they expire."""
    wallets = await create_wallets(service, _WALLETS + _PROBE_WALLETS)
    probed = wallets[_WALLETS:]
    starts = time.time() + plan.lead_s
    began = time.time()
    await _create(service, plan.batches(wallets[:_WALLETS], starts), is_direct=plan.is_direct)
    console.print(f"{plan.holds:,} holds created in {time.time() - began:.0f} s")
    assert time.time() < starts - _BEFORE_S, "creating them took too long"
    await asyncio.sleep(max(0.0, starts - _BEFORE_S - time.time()))
    probes = [LatencyProbes(service.http_url, probed[number::_PROBES]) for number in range(_PROBES)]
    database = await asyncpg.connect(service.database_url)
    try:
        before = time.monotonic()
        await asyncio.sleep(max(0.0, starts - time.time()))
        during = time.monotonic()
        await _until_all_expired(database, starts + plan.window_s, starts + plan.at_most_s)
        over = time.monotonic()
        oldest_due_s = await database.fetchval(_OLDEST_S)
        row = await database.fetchrow(_LATE, timeout=60)
        still_due = await database.fetchval(_LEFT)
    finally:
        await database.close()
        await asyncio.gather(*(probe.stop() for probe in probes))
    assert row is not None, "an aggregate has a row"
    expired, late = row
    quiet = [one for probe in probes for one in probe.between(before, during)]
    busy = [one for probe in probes for one in probe.between(during, over)]
    return Expiry(
        holds=plan.holds,
        window_s=plan.window_s,
        probes_before=len(quiet),
        probes_during=len(busy),
        p50_before_ms=_percentile_ms(quiet, 0.5),
        p50_during_ms=_percentile_ms(busy, 0.5),
        p99_before_ms=_percentile_ms(quiet, 0.99),
        p99_during_ms=_percentile_ms(busy, 0.99),
        p99_ratio=round(_percentile_ms(busy, 0.99) / _percentile_ms(quiet, 0.99), 2),
        failed_probes=sum(one.status != 201 for one in [*quiet, *busy]),
        expired=expired,
        late_p50_s=round(float(late[0]), 3),
        late_p99_s=round(float(late[1]), 3),
        late_max_s=round(float(late[2]), 3),
        expired_per_s=round(expired / (over - during)),
        still_due=still_due,
        oldest_due_s=round(float(oldest_due_s), 1),
        measured_s=round(over - during, 1),
    )


def _request(batch: HoldBatch) -> RequestTemplate:
    """``batch`` as a request."""
    items = [
        {
            "type": "debit",
            "amount": "1.00",
            "expires_at": (
                batch.first_due + timedelta(seconds=batch.interval_s * number)
            ).isoformat(),
        }
        for number in range(batch.count)
    ]
    return RequestTemplate(
        method="POST",
        path=f"/v1/wallet/{batch.wallet_id}/transfers/batch",
        body=json.dumps({"items": items}, separators=(",", ":")),
    )


async def _until_all_expired(
    database: asyncpg.Connection, window_ends: float, at_most_until: float
) -> None:
    """Poll twice a second, from the window's end on: counting reads the index."""
    await asyncio.sleep(max(0.0, min(window_ends, at_most_until) - time.time()))
    while time.time() < at_most_until and await database.fetchval(_LEFT):  # noqa: ASYNC110
        await asyncio.sleep(0.5)


def _percentile_ms(probes: Sequence[Probe], share: float) -> float:
    times = sorted(one.took_s for one in probes)
    assert times, "there are probes"
    return round(times[min(int(share * len(times)), len(times) - 1)] * 1e3, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holds", type=int, default=100_000, help="a multiple of 1,000")
    parser.add_argument("--window", type=float, default=60.0, help="seconds in which all are due")
    parser.add_argument("--direct", action="store_true", help="create them without HTTP")
    parser.add_argument("--at-most", type=float, default=1_200.0, help="seconds of measurement")
    options = parser.parse_args()
    if options.holds < _BATCH or options.holds % _BATCH:
        parser.error(f"--holds must be a multiple of {_BATCH:,}")
    console = Console(stderr=True)
    with own_stack() as service:
        plan = Plan(
            holds=options.holds,
            window_s=options.window,
            is_direct=options.direct,
            at_most_s=options.at_most,
        )
        found = asyncio.run(measure(service, plan, console))
    print(msgspec.json.format(msgspec.json.encode(found)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
