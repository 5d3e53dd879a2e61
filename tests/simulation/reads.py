"""The read pool: answers the SQL of `Queries` from the in-memory tables."""

from typing import Any

import msgspec

from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import JournalConflict, JournalUnavailable, OutcomeUnknown
from projections import queries
from tests.simulation.connections import Connection
from tests.simulation.projections import ProjectionTables, control_of
from verification.facts import Control
from wallet.state import Wallet


class SimulatedPool:
    """Replaces ``asyncpg.Pool`` for the two statements that read a wallet."""

    def __init__(
        self, database: MemoryDatabase, tables: ProjectionTables, connection: Connection
    ) -> None:
        self._database = database
        self._tables = tables
        self._connection = connection

    async def fetchrow(
        self, sql: str, wallet_id: Any, *, timeout: float | None = None
    ) -> dict[str, Any] | None:
        statements = {
            queries._PROJECTED_WALLET: self._projected,
            queries._WRITTEN_WALLET: self._written,
        }
        statement = statements[sql]
        try:
            return await self._connection.execute(lambda: statement(wallet_id))
        except (JournalConflict, JournalUnavailable, OutcomeUnknown) as failure:
            raise OSError(str(failure)) from failure

    def _written(self, wallet_id: Any) -> dict[str, Any] | None:
        wallet = self._database.wallets.get(wallet_id)
        return _row(wallet) if wallet is not None else None

    def _projected(self, wallet_id: Any) -> dict[str, Any] | None:
        projected = self._tables.wallets.get(wallet_id)
        if projected is None:
            return None
        return _row(self._database.wallets[wallet_id]) | {
            "version": projected.version,
            "balance": str(projected.balance),
            "pending_debit": str(projected.pending_debit),
            "pending_credit": str(projected.pending_credit),
            **_control_row(projected.control),
        }


def _control_row(control: Control) -> dict[str, Any]:
    return {
        "status": control.status,
        "frozen": control.frozen or None,
        "frozen_reason": control.frozen_reason or None,
        "overdraft_limit": str(control.overdraft_limit),
    }


def _row(wallet: Wallet) -> dict[str, Any]:
    row = msgspec.structs.asdict(wallet)
    row["metadata"] = None
    row |= _control_row(control_of(wallet))
    for name in ("balance", "pending_debit", "pending_credit"):
        row[name] = str(row[name])
    return row
