"""The state of a set of wallets in Postgres: versions, counts, consistency."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

CONNECT_TIMEOUT_S: Final = 10.0
"""For a connection to the service's database, which may have several hosts."""

_STATE: Final = """
SELECT coalesce(sum(version), 0)::bigint AS versions, count(*) AS wallets, clock_timestamp() AS now,
    (SELECT count(*) FROM transfers WHERE wallet_id = ANY ($1::uuid[])) AS transfers
FROM wallets WHERE id = ANY ($1::uuid[])
"""

_VERSIONS: Final = "SELECT id::text, version FROM wallets WHERE id = ANY ($1::uuid[])"

_BEHIND: Final = """
SELECT count(*) FROM wallets w LEFT JOIN wallet_projections p ON p.wallet_id = w.id
WHERE w.id = ANY ($1::uuid[]) AND p.version IS DISTINCT FROM w.version
"""

_UNPUBLISHED: Final = "SELECT count(*) FROM outbox WHERE wallet_id = ANY ($1::uuid[])"

_BATCHES: Final = """
SELECT occurred_at, count(*) AS events FROM wallet_events
WHERE wallet_id = ANY ($1::uuid[]) AND occurred_at >= $2 AND transfer_id IS NOT NULL
GROUP BY occurred_at ORDER BY occurred_at
"""

# Each query counts the wallets (or rows) that break one rule; the name says which.
_RULES: Final = {
    "journal has every version once, from 1 on": """
SELECT count(*) FROM wallets w LEFT JOIN (
    SELECT wallet_id, count(*) AS events, min(version) AS first, max(version) AS last
    FROM wallet_events WHERE wallet_id = ANY ($1::uuid[]) GROUP BY wallet_id
) e ON e.wallet_id = w.id
WHERE w.id = ANY ($1::uuid[])
    AND (e.events, e.first, e.last) IS DISTINCT FROM (w.version, 1::bigint, w.version)
""",
    "every transfer was recorded once": """
SELECT abs(count(*) - count(DISTINCT (e.wallet_id, e.transfer_id)))
    + abs(count(*) - (SELECT count(*) FROM transfers WHERE wallet_id = ANY ($1::uuid[])))
FROM wallet_events e
WHERE e.wallet_id = ANY ($1::uuid[]) AND e.transfer_id IS NOT NULL AND e.previous_status IS NULL
""",
    "balances are the sum of the transfers": """
SELECT count(*) FROM wallets w LEFT JOIN (
    SELECT wallet_id,
        coalesce(sum(amount) FILTER (WHERE type = 'debit' AND status = 'completed'), 0)
        - coalesce(sum(amount) FILTER (WHERE type = 'credit' AND status <> 'failed'), 0) AS balance,
        coalesce(sum(amount) FILTER (WHERE type = 'debit' AND status = 'pending'), 0) AS debits,
        coalesce(sum(amount) FILTER (WHERE type = 'credit' AND status = 'pending'), 0) AS credits
    FROM transfers WHERE wallet_id = ANY ($1::uuid[]) GROUP BY wallet_id
) t ON t.wallet_id = w.id
WHERE w.id = ANY ($1::uuid[]) AND (w.balance, w.pending_debit, w.pending_credit)
    IS DISTINCT FROM (coalesce(t.balance, 0), coalesce(t.debits, 0), coalesce(t.credits, 0))
""",
    "balances are those of the last event": """
SELECT count(*) FROM wallets w
LEFT JOIN wallet_events e ON e.wallet_id = w.id AND e.version = w.version
WHERE w.id = ANY ($1::uuid[]) AND (w.balance, w.pending_debit, w.pending_credit)
    IS DISTINCT FROM (e.balance, e.pending_debit, e.pending_credit)
""",
    "wallet projections are equal": """
SELECT count(*) FROM wallets w LEFT JOIN wallet_projections p ON p.wallet_id = w.id
WHERE w.id = ANY ($1::uuid[]) AND (w.version, w.balance, w.pending_debit, w.pending_credit)
    IS DISTINCT FROM (p.version, p.balance, p.pending_debit, p.pending_credit)
""",
    "transfer projections are equal": """
SELECT count(*) FROM (
    SELECT wallet_id, type, status, count(*) AS transfers, sum(amount) AS amounts
    FROM transfers WHERE wallet_id = ANY ($1::uuid[]) GROUP BY 1, 2, 3
) t FULL JOIN (
    SELECT wallet_id, type, status, count(*) AS transfers, sum(amount) AS amounts
    FROM transfer_projections WHERE wallet_id = ANY ($1::uuid[]) GROUP BY 1, 2, 3
) p USING (wallet_id, type, status)
WHERE (t.transfers, t.amounts) IS DISTINCT FROM (p.transfers, p.amounts)
""",
}


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Versions and transfers of a set of wallets."""

    wallets: int
    versions: int
    """The sum of the wallets' versions: the number of their events."""
    transfers: int
    now: datetime


class DatabaseState:
    """Reads the service's database, with a connection that the caller owns."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def state(self, wallets: Sequence[str]) -> State:
        row = await self._connection.fetchrow(_STATE, wallets)
        assert row is not None
        return msgspec.convert(dict(row.items()), State)

    async def versions(self, wallets: Sequence[str]) -> dict[str, int]:
        """The version of each wallet."""
        rows = await self._connection.fetch(_VERSIONS, wallets)
        return {row["id"]: row["version"] for row in rows}

    async def wallets_behind(self, wallets: Sequence[str]) -> int:
        """Wallets whose projection isn't at their version yet."""
        return int(await self._connection.fetchval(_BEHIND, wallets))

    async def unpublished(self, wallets: Sequence[str]) -> int:
        """Outbox rows whose events JetStream hasn't acknowledged yet."""
        return int(await self._connection.fetchval(_UNPUBLISHED, wallets))

    async def batches(self, wallets: Sequence[str], since: datetime) -> list[tuple[datetime, int]]:
        """Time and size of each transaction: all events of one have the same time."""
        rows = await self._connection.fetch(_BATCHES, wallets, since)
        return [(row["occurred_at"], row["events"]) for row in rows]

    async def violations(self, wallets: Sequence[str]) -> list[str]:
        """Violated rules, as text."""
        findings = []
        for rule, query in _RULES.items():
            count = await self._connection.fetchval(query, wallets)
            if count:
                findings.append(f"violated {count} times: {rule}")
        return findings

    async def settings(self, names: Sequence[str]) -> dict[str, str]:
        """The server's settings, from SHOW."""
        return {name: await self._connection.fetchval(f"SHOW {name}") for name in names}

    async def checkpoint(self) -> None:
        """Checkpoint, so that all loads start alike. Skipped without the privilege."""
        try:
            await self._connection.execute("CHECKPOINT")
        except asyncpg.InsufficientPrivilegeError:
            return
