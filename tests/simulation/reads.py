"""The read pool: answers the SQL of `Queries` from the in-memory tables."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import JournalConflict, JournalUnavailable, OutcomeUnknown
from projections import queries
from projections.grouped_reads import statement_for_many
from tests.simulation.connections import Connection
from tests.simulation.projections import ProjectionTables, control_of
from verification.facts import Control
from wallet.state import Wallet

Result = TypeVar("Result")


class SimulatedPool:
    """Replaces ``asyncpg.Pool`` for the two statements that read a wallet."""

    def __init__(
        self, database: MemoryDatabase, tables: ProjectionTables, connection: Connection
    ) -> None:
        self._database = database
        self._tables = tables
        self._connection = connection

    async def fetchrow(self, sql: str, wallet_id: Any) -> dict[str, Any] | None:
        statements = {
            queries._PROJECTED_WALLET: self._projected,
            queries._WRITTEN_WALLET: self._written,
        }
        statement = statements[sql]
        return await self._execute(lambda: statement(wallet_id))

    async def fetch(self, sql: str, wallet_ids: Sequence[Any]) -> list[dict[str, Any]]:
        statements = {
            statement_for_many(queries._PROJECTED_WALLET, ["uuid"]): self._projected,
            statement_for_many(queries._WRITTEN_WALLET, ["uuid"]): self._written,
        }
        statement = statements[sql]
        rows = await self._execute(lambda: [statement(one) for one in wallet_ids])
        return [{"number": n, **row} for n, row in enumerate(rows, 1) if row is not None]

    async def _execute(self, statement: Callable[[], Result]) -> Result:
        try:
            return await self._connection.execute(statement)
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
