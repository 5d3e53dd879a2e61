"""Hashes of wallets that were written without one: by releases from before the chain.

Their events have no stored hashes. The hash of such a wallet is computed over its whole journal,
once: `wallet migrate` does it for every wallet, beside the running service. A shard of the previous
release may write meanwhile; what it wrote is linked when the wallet is next loaded.
"""

from typing import Final

from actors.journal.postgres_connection import Connection
from actors.journal.postgres_rows import EVENT_COLUMNS, recorded_event_from_row
from runtime.postgres.connect import connect
from wallet.chain import GENESIS, content_of, link
from wallet.ids import WalletId
from wallet.state import Wallet

EVENTS_PER_PAGE: Final = 2_000
"""Events that are read at once: bounds memory, and what is lost if a time-out ends the load."""

_WALLETS_PER_PAGE: Final = 1_000

_CONNECT_TIMEOUT_S: Final = 10.0

_NIL_UUID: Final = WalletId("00000000-0000-0000-0000-000000000000")

_LINKED: Final = "SELECT hash, hash_version FROM wallets WHERE id = $1::uuid"

_EVENTS: Final = f"""{EVENT_COLUMNS}
FROM wallets w CROSS JOIN LATERAL (
    SELECT * FROM wallet_events
    WHERE wallet_id = w.id AND version > $2 AND version <= $3 ORDER BY version LIMIT $4 OFFSET 0
) e
WHERE w.id = $1::uuid
ORDER BY e.version
"""

# Only forward, and only from the hash that it was computed from.
_ADVANCE: Final = """
UPDATE wallets SET hash = $2, hash_version = $3
WHERE id = $1::uuid AND hash_version = $4 AND hash = $5 AND version >= $3
"""

_UNLINKED: Final = """
SELECT id::text, version FROM wallets
WHERE id > $1::uuid AND hash_version < version ORDER BY id LIMIT $2
"""


async def linked_hash(connection: Connection, wallet: Wallet) -> bytes:
    """The hash of ``wallet`` at its version, which may lack one in its row.

    Full pages are stored, so that a load that is cut off continues there.
    """
    return await _link(connection, wallet.id, wallet.version, store_from=EVENTS_PER_PAGE)


async def link_all_wallets(dsn: str) -> None:
    """Store the hash of every wallet that lacks one. Writers may go on meanwhile."""
    connection = await connect(dsn, timeout_s=_CONNECT_TIMEOUT_S)
    try:
        after: WalletId | None = _NIL_UUID
        while after is not None:
            after = await link_wallets(connection, after=after, limit=_WALLETS_PER_PAGE)
    finally:
        await connection.close()


async def link_wallets(connection: Connection, *, after: WalletId, limit: int) -> WalletId | None:
    """Store the hashes of up to ``limit`` wallets that lack one; the id of the last of them.

    None: no wallet after ``after`` lacks its hash.
    """
    rows = await connection.fetch(_UNLINKED, after, limit)
    for wallet_id, version in rows:
        await _link(connection, wallet_id, version, store_from=1)
    return rows[-1][0] if rows else None


async def _link(
    connection: Connection, wallet_id: WalletId, version: int, *, store_from: int
) -> bytes:
    """The hash at ``version``. Stores it after every page of at least ``store_from`` events."""
    row = await connection.fetchrow(_LINKED, wallet_id)
    assert row is not None, "a wallet is never deleted"
    stored, linked = row
    known: bytes = stored or GENESIS
    while linked < version:
        rows = await connection.fetch(_EVENTS, wallet_id, linked, version, EVENTS_PER_PAGE)
        reached = linked + len(rows)
        assert [row["version"] for row in rows] == list(range(linked + 1, reached + 1)), (
            "INV-10 versions are contiguous"
        )
        assert rows, "INV-10 a wallet has all events up to its version"
        for row in rows:
            known = link(known, content_of(recorded_event_from_row(row)))
        if len(rows) >= store_from:
            await connection.execute(_ADVANCE, wallet_id, known, reached, linked, stored)
            stored = known
        linked = reached
    return known
