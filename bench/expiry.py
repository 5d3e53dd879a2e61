"""Holds that are due within a minute: what other commands notice, and how late they expire.

    python -m bench.expiry                      # starts a stack of its own, about three minutes
    python -m bench.expiry --holds 1000000      # much longer, most of it to create them

Creates the holds with times that are spread over the window, by batches. Then single transfers to
other wallets run as probes: before the window, and in it. The goal: their p99 at most doubles.
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
_FINISH_S_MAX: Final = 1_200.0

_LEFT: Final = "SELECT count(*) FROM transfer_expiries"
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
    finished_after_window_s: float


async def measure(service: Service, holds: int, window_s: float, console: Console) -> Expiry:
    """Create ``holds`` holds and probe the service before and while they expire."""
    wallets = await create_wallets(service, _WALLETS + _PROBE_WALLETS)
    probed = wallets[_WALLETS:]
    lead_s = holds / _CREATED_PER_S + _SETTLE_S + _BEFORE_S
    starts = time.time() + lead_s
    script = RequestScript(
        templates=_templates(wallets[:_WALLETS], holds, starts, window_s),
        mode=ResponseMode.ITEMS,
        items_per_request=_BATCH,
    )
    began = time.time()
    created = await send_counted(service, script, len(script.templates))
    console.print(f"{created.items_accepted:,} holds created in {time.time() - began:.0f} s")
    assert created.items_accepted == holds, created.errors
    await asyncio.sleep(max(0.0, starts - _BEFORE_S - time.time()))
    probes = [LatencyProbes(service.http_url, probed[number::_PROBES]) for number in range(_PROBES)]
    database = await asyncpg.connect(service.database_url)
    try:
        before = time.monotonic()
        await asyncio.sleep(max(0.0, starts - time.time()))
        during = time.monotonic()
        await _until_all_expired(database, starts + window_s)
        over = time.monotonic()
        row = await database.fetchrow(_LATE)
    finally:
        await database.close()
        await asyncio.gather(*(probe.stop() for probe in probes))
    assert row is not None, "an aggregate has a row"
    expired, late = row
    quiet = [one for probe in probes for one in probe.between(before, during)]
    busy = [one for probe in probes for one in probe.between(during, over)]
    return Expiry(
        holds=holds,
        window_s=window_s,
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
        finished_after_window_s=round(over - during - window_s, 1),
    )


def _templates(
    wallets: Sequence[str], holds: int, starts: float, window_s: float
) -> list[RequestTemplate]:
    """Batches of holds, whose times are spread evenly over the window."""
    first = datetime.fromtimestamp(starts, UTC)
    templates = []
    for number in range(0, holds, _BATCH):
        items = [
            {
                "type": "debit",
                "amount": "1.00",
                "expires_at": (
                    first + timedelta(seconds=window_s * (number + index) / holds)
                ).isoformat(),
            }
            for index in range(_BATCH)
        ]
        templates.append(
            RequestTemplate(
                method="POST",
                path=f"/v1/wallet/{wallets[number // _BATCH % len(wallets)]}/transfers/batch",
                body=json.dumps({"items": items}, separators=(",", ":")),
            )
        )
    return templates


async def _until_all_expired(database: asyncpg.Connection, window_ends: float) -> None:
    """Poll once a second, from the window's end on: counting reads the index."""
    await asyncio.sleep(max(0.0, window_ends - time.time()))
    async with asyncio.timeout(_FINISH_S_MAX):
        while await database.fetchval(_LEFT):  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.5)


def _percentile_ms(probes: Sequence[Probe], share: float) -> float:
    times = sorted(one.took_s for one in probes)
    assert times, "there are probes"
    return round(times[min(int(share * len(times)), len(times) - 1)] * 1e3, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holds", type=int, default=100_000, help="a multiple of 1,000")
    parser.add_argument("--window", type=float, default=60.0, help="seconds in which all are due")
    options = parser.parse_args()
    if options.holds < _BATCH or options.holds % _BATCH:
        parser.error(f"--holds must be a multiple of {_BATCH:,}")
    console = Console(stderr=True)
    with own_stack() as service:
        found = asyncio.run(measure(service, options.holds, options.window, console))
    print(msgspec.json.format(msgspec.json.encode(found)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
