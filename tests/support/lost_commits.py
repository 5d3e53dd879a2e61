"""A database that loses its last commits, as after a failover or a restore."""

import asyncpg

from wallet.ids import WalletId

_REWIND = (
    "DELETE FROM wallet_events WHERE wallet_id = $1::uuid AND version > $2",
    "DELETE FROM transfers WHERE wallet_id = $1::uuid AND created_version > $2",
    "DELETE FROM idempotency_keys WHERE wallet_id = $1::uuid AND version > $2",
    "DELETE FROM outbox WHERE wallet_id = $1::uuid AND last_version > $2",
    "UPDATE wallets w SET (version, balance, pending_debit, pending_credit, updated_at, hash, "
    "hash_version) = (SELECT version, balance, pending_debit, pending_credit, occurred_at, hash, "
    "version FROM wallet_events WHERE wallet_id = $1::uuid AND version = $2) "
    "WHERE id = $1::uuid AND $2 > 0",
    "DELETE FROM wallets WHERE id = $1::uuid AND $2::bigint = 0",
)


async def rewind(database: str, wallet_id: WalletId, version: int) -> None:
    """Take a wallet back to ``version``; 0: to before its creation. No settlement may be lost."""
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            for statement in _REWIND:
                await connection.execute(statement, wallet_id, version)
    finally:
        await connection.close()
