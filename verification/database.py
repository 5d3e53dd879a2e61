"""Check everything that Postgres holds, while the service writes.

Each range of wallets is read in one snapshot, so that a concurrent write is seen as a whole or not
at all. Everything that belongs to a wallet is in its range.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import asyncpg

from runtime.postgres.connect import Role
from runtime.postgres.connect import connect as open_session
from verification.digest import EarlierHeads
from verification.findings import Findings
from verification.range_check import RangeCheck, Totals
from verification.violations import Violation, ViolationKind
from verification.wallet_ranges import ranges

_CONNECT_TIMEOUT_S: Final = 10.0

SETTINGS: Final = {
    "application_name": "wallet-verify",
    # Many small statements: compiling them would take longer than running them.
    "jit": "off",
}


async def connect(url: str) -> asyncpg.Connection:
    """Open a connection to the primary; with one host in ``url``, to that, primary or not.

    Raises:
        One of `runtime.postgres.connect.CONNECT_ERRORS`: Postgres can't be reached.
    """
    return await open_session(
        url, timeout_s=_CONNECT_TIMEOUT_S, role=Role.READER, settings=SETTINGS
    )


async def check_database(
    connection: asyncpg.Connection,
    findings: Findings,
    *,
    lag_max: timedelta,
    earlier: EarlierHeads | None = None,
    on_progress: Callable[[Totals], None] = lambda _totals: None,
) -> Totals:
    """Check every row. ``lag_max``: a smaller projection lag is only counted. ``earlier``: every
    wallet's chain must contain its head of that digest."""
    totals = Totals()
    async for wallets in ranges(connection):
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            check = RangeCheck(
                connection,
                wallets,
                findings=findings,
                totals=totals,
                lag_max=lag_max,
                heads=earlier.up_to(wallets.until) if earlier else None,
            )
            await check.run()
        findings.start_next_range()
        on_progress(totals)
    for currency, difference in sorted(totals.holds.items()):
        if difference:
            findings.add([_not_conserved(currency, difference)])
    return totals


async def events_expected(connection: asyncpg.Connection) -> int:
    """Approximate number of events to check."""
    return int(await connection.fetchval("SELECT coalesce(sum(version), 0) FROM wallets"))


def _not_conserved(currency: str, difference: int) -> Violation:
    return Violation(
        kind=ViolationKind.MONEY_NOT_CONSERVED,
        wallet_id="*",
        detail=f"{currency}: wallets hold {difference:+} minor units over in - out",
    )
