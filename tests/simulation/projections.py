"""The projections' tables in memory, and what `project_batch` and `catch_up` do to them.

The consumer and the projection code are the real ones; only SQL is replaced. Rows of a batch whose
events the journal doesn't have belong to a history that it lost: the wallet is then taken anew from
the journal.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import JournalConflict, JournalUnavailable, OutcomeUnknown
from projections.store import (
    BalanceRow,
    DeadLetter,
    ProjectionChanges,
    SettlementRow,
    TransferRow,
    WalletRow,
)
from tests.simulation.connections import Connection
from wallet.events import RecordedEvent, TransferChanged
from wallet.ids import WalletId

T = TypeVar("T")


class ProjectedWallet(msgspec.Struct, kw_only=True):
    """A row of ``wallet_projections``."""

    id: WalletId
    version: int
    hash: bytes = b""
    balance: int = 0
    pending_debit: int = 0
    pending_credit: int = 0


class ProjectedTransfer(msgspec.Struct, kw_only=True):
    """A row of ``transfer_projections``."""

    type: str
    status: str
    amount: int
    reference_id: str | None
    failure_reason: str | None
    created_version: int
    version: int


class ProjectionTables:
    """The tables, and the two statements that write to them."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self.wallets: dict[str, ProjectedWallet] = {}
        self.transfers: dict[tuple[str, str], ProjectedTransfer] = {}

    def snapshot(self) -> "ProjectionTables":
        """A copy of the rows."""
        copy = type(self)(self._database)
        copy.restore(self)
        return copy

    def restore(self, snapshot: "ProjectionTables") -> None:
        """Take over the rows of ``snapshot``. They are in the journal's database."""
        copied = msgspec.structs.replace
        self.wallets = {one: copied(row) for one, row in snapshot.wallets.items()}
        self.transfers = {one: copied(row) for one, row in snapshot.transfers.items()}

    def project(self, batch: ProjectionChanges) -> list[WalletId]:
        lost = self._wallets_with_lost_events(batch)
        for wallet in batch.wallets:
            if wallet.id not in lost:
                self._add_wallet(wallet)
        for balances in batch.balances:
            if balances.id not in lost:
                self._move_wallet(balances)
        for transfer in batch.transfers:
            if transfer.wallet_id not in lost:
                self._put_transfer(transfer)
        for settlement in batch.settlements:
            if settlement.wallet_id not in lost:
                self._settle(settlement)
        for wallet_id in sorted(lost):
            self._take_anew(wallet_id)
        return [
            row.id
            for row in batch.balances
            if row.id not in lost and self._version(row.id) < row.last_version
        ]

    def catch_up(self, wallet_id: WalletId) -> None:
        """Apply the journal events that the projection lacks."""
        if wallet_id not in self._database.wallets:
            return
        row = self.wallets.setdefault(wallet_id, ProjectedWallet(id=wallet_id, version=0))
        for recorded in self._database.events_by_wallet[wallet_id][row.version :]:
            self._fold(row, recorded)

    def _wallets_with_lost_events(self, batch: ProjectionChanges) -> set[WalletId]:
        """Wallets with a row in ``batch`` that is not of an event in the journal."""
        lost = {row.id for row in batch.balances if not self._is_written(row)}
        changed: list[TransferRow | SettlementRow] = [*batch.transfers, *batch.settlements]
        lost |= {row.wallet_id for row in changed if not self._is_changed(row)}
        return lost

    def _is_written(self, row: BalanceRow) -> bool:
        """Whether the journal has this event; its time and its balances identify it."""
        recorded = self._recorded(row.id, row.last_version)
        if recorded is None:
            return False
        wallet = recorded.wallet_after
        written = wallet.updated_at, wallet.balance, wallet.pending_debit, wallet.pending_credit
        balances = int(row.balance), int(row.pending_debit), int(row.pending_credit)
        return written == (row.updated_at, *balances)

    def _is_changed(self, row: TransferRow | SettlementRow) -> bool:
        recorded = self._recorded(row.wallet_id, row.version)
        if recorded is None or not isinstance(recorded.event, TransferChanged):
            return False
        transfer = recorded.event.transfer
        return (transfer.id, transfer.status) == (row.id, row.status)

    def _recorded(self, wallet_id: WalletId, version: int) -> RecordedEvent | None:
        events = self._database.events_by_wallet.get(wallet_id, ())
        return events[version - 1] if version <= len(events) else None

    def _hash_at(self, wallet_id: WalletId, version: int) -> bytes:
        recorded = self._recorded(wallet_id, version)
        return recorded.wallet_after.hash if recorded is not None else b""

    def _take_anew(self, wallet_id: WalletId) -> None:
        """Drop the wallet's rows and apply its whole journal."""
        self.wallets.pop(wallet_id, None)
        for key in [key for key in self.transfers if key[0] == wallet_id]:
            del self.transfers[key]
        self.catch_up(wallet_id)

    def _version(self, wallet_id: str) -> int:
        row = self.wallets.get(wallet_id)
        return row.version if row is not None else 0

    def _add_wallet(self, wallet: WalletRow) -> None:
        row = ProjectedWallet(id=wallet.id, version=1, hash=self._hash_at(wallet.id, 1))
        self.wallets.setdefault(wallet.id, row)

    def _move_wallet(self, row: BalanceRow) -> None:
        stored = self.wallets.get(row.id)
        if stored is not None and row.first_version - 1 <= stored.version < row.last_version:
            stored.version = row.last_version
            stored.hash = self._hash_at(row.id, row.last_version)
            stored.balance = int(row.balance)
            stored.pending_debit = int(row.pending_debit)
            stored.pending_credit = int(row.pending_credit)

    def _put_transfer(self, row: TransferRow) -> None:
        stored = self.transfers.get((row.wallet_id, row.id))
        if stored is None or stored.version < row.version:
            self.transfers[row.wallet_id, row.id] = ProjectedTransfer(
                type=row.type,
                status=row.status,
                amount=int(row.amount),
                reference_id=row.reference_id,
                failure_reason=row.failure_reason,
                created_version=row.created_version,
                version=row.version,
            )

    def _settle(self, row: SettlementRow) -> None:
        stored = self.transfers.get((row.wallet_id, row.id))
        if stored is not None and stored.version < row.version:
            stored.status = row.status
            stored.reference_id = row.reference_id
            stored.failure_reason = row.failure_reason
            stored.version = row.version

    def _fold(self, row: ProjectedWallet, recorded: RecordedEvent) -> None:
        wallet = recorded.wallet_after
        row.version, row.hash, row.balance = wallet.version, wallet.hash, wallet.balance
        row.pending_debit, row.pending_credit = wallet.pending_debit, wallet.pending_credit
        if not isinstance(recorded.event, TransferChanged):
            return
        transfer = recorded.event.transfer
        self.transfers[wallet.id, transfer.id] = ProjectedTransfer(
            type=transfer.type,
            status=transfer.status,
            amount=transfer.amount,
            reference_id=transfer.reference_id,
            failure_reason=transfer.failure_reason,
            created_version=transfer.created_version,
            version=wallet.version,
        )


class SimulatedStore:
    """Replaces `ProjectionStore`: the same statements over a faulty connection."""

    def __init__(self, tables: ProjectionTables, connection: Connection) -> None:
        self._tables = tables
        self._connection = connection

    async def project(self, batch: ProjectionChanges) -> list[WalletId]:
        return await self._ask(lambda: self._tables.project(batch))

    async def catch_up(self, wallet_id: WalletId) -> None:
        await self._ask(lambda: self._tables.catch_up(wallet_id))

    async def add_dead_letter(self, letter: DeadLetter) -> None:
        raise AssertionError(f"unexpected poison event: {letter.reason}")

    async def _ask(self, statement: Callable[[], T]) -> T:
        try:
            return await self._connection.execute(statement)
        except (JournalConflict, JournalUnavailable, OutcomeUnknown) as failure:
            raise OSError(str(failure)) from failure
