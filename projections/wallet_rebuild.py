"""Takes one wallet's projections anew from the journal.

In one transaction, or in pieces if the history is long (`projections.incremental_rebuild`). Either
way nothing remains that the journal doesn't have; a wallet that it doesn't have is deleted.
"""

from typing import Final

from projections.incremental_rebuild import Connection, rebuild_in_pieces

_VERSION: Final = "SELECT version FROM wallets WHERE id = $1::uuid"
_CATCH_UP: Final = "SELECT catch_up($1::uuid, $2)"


async def retake_wallet(connection: Connection, wallet_id: str, *, events_max: int) -> None:
    """Replace a wallet's rows by the journal's state; ``events_max`` events per transaction.

    Raises:
        asyncpg.DeadlockDetectedError: a batch locks this wallet and others; try again.
    """
    events = await connection.fetchval(_VERSION, wallet_id) or 0
    if events > events_max:
        await rebuild_in_pieces(connection, wallet_id, events_max=events_max)
        return
    async with connection.transaction():
        await connection.execute(
            "DELETE FROM wallet_projections WHERE wallet_id = $1::uuid", wallet_id
        )
        await connection.execute(
            "DELETE FROM transfer_projections WHERE wallet_id = $1::uuid", wallet_id
        )
        while await connection.fetchval(_CATCH_UP, wallet_id, events_max):
            pass
