"""The projections' tables in memory, and what `project_batch` and `catch_up` do to them.

The consumer and the projection code are the real ones; only SQL is replaced. Rows of a batch whose
events the journal doesn't have belong to a history that it lost: the wallet is then taken anew from
the journal.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import msgspec

from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import JournalConflict, JournalUnavailable, OutcomeUnknown
from projections.store import (
    BalanceRow,
    DeadLetter,
    ProjectionChanges,
    Reason,
    RefusedWallet,
    TransferRow,
)
from tests.simulation.connections import Connection
from verification.facts import Control, Refunded
from wallet.events import RecordedEvent, TransferChanged
from wallet.ids import WalletId
from wallet.state import Wallet

T = TypeVar("T")


def control_of(wallet: Wallet) -> Control:
    """What ``wallet`` may do, as the checker has it."""
    return Control(
        status=wallet.status,
        frozen=wallet.frozen or "",
        frozen_reason=wallet.frozen_reason or "",
        overdraft_limit=wallet.overdraft_limit,
    )


class ProjectedWallet(msgspec.Struct, kw_only=True):
    """A row of ``wallet_projections``."""

    id: WalletId
    version: int
    hash: bytes = b""
    balance: int = 0
    pending_debit: int = 0
    pending_credit: int = 0
    control: Control = Control()


class ProjectedTransfer(msgspec.Struct, kw_only=True):
    """A row of ``transfer_projections``."""

    type: str
    status: str
    amount: int
    reference_id: str | None
    failure_reason: str | None
    created_version: int
    version: int
    expires_at: datetime | None = None
    on_expiry: str | None = None
    part: int = 0
    refunds: str = ""
    refunded: Refunded | None = None


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

    def project(self, batch: ProjectionChanges) -> list[RefusedWallet]:
        created = {wallet.id for wallet in batch.wallets}
        reasons = {row.id: self._reason(row) for row in batch.balances}
        moving = {
            row.id
            for row in batch.balances
            if reasons[row.id] is None and self._head(row.id).version < row.last_version
        }
        for balances in batch.balances:
            if balances.id in moving:
                assert balances.id in self.wallets or balances.id in created
                self._move_wallet(balances)
        for control in batch.controls:
            if control.id in moving:
                self.wallets[control.id].control = Control(
                    status=control.status,
                    frozen=control.frozen or "",
                    frozen_reason=control.frozen_reason or "",
                    overdraft_limit=int(control.overdraft_limit),
                )
        for transfer in batch.transfers:
            if transfer.wallet_id in moving:
                self._put_transfer(transfer)
        for row in batch.refunded:
            if row.wallet_id in moving:
                counts = int(row.refunded_amount), int(row.refund_pending_amount)
                self.transfers[row.wallet_id, row.id].refunded = Refunded(*counts)
        return [RefusedWallet(id, reason) for id, reason in reasons.items() if reason is not None]

    def _reason(self, row: BalanceRow) -> Reason | None:
        """Why nothing of this wallet is applied, if so."""
        head = self._head(row.id)
        if head.version > 0 and not self._has(row.id, head.version, head.hash):
            return Reason.LOST_HISTORY
        if not self._has(row.id, row.last_version, row.hash):
            unknown = head.version > 0 and not head.hash
            return Reason.LOST_HISTORY if unknown else Reason.LOST_EVENTS
        if head.version < row.first_version - 1:
            return Reason.GAP
        if head.version == row.first_version - 1:
            known = head.version > 0 and head.hash and row.previous_hash
            return Reason.GAP if known and head.hash != row.previous_hash else None
        return None

    def _has(self, wallet_id: WalletId, version: int, hash: bytes) -> bool:
        """Whether the journal has the event. An unknown hash is not compared."""
        events = self._database.events_by_wallet.get(wallet_id, [])
        return version <= len(events) and hash in (b"", events[version - 1].wallet_after.hash)

    def _head(self, wallet_id: WalletId) -> ProjectedWallet:
        return self.wallets.get(wallet_id) or ProjectedWallet(id=wallet_id, version=0)

    def retake(self, wallet_id: WalletId) -> None:
        """Replace the wallet's rows by the journal's state."""
        self.wallets.pop(wallet_id, None)
        for key in [key for key in self.transfers if key[0] == wallet_id]:
            del self.transfers[key]
        self.catch_up(wallet_id)

    def repair(self, refused: RefusedWallet) -> None:
        if refused.reason is Reason.LOST_HISTORY:
            self.retake(refused.wallet_id)
        else:
            self.catch_up(refused.wallet_id)

    def catch_up(self, wallet_id: WalletId) -> None:
        """Apply the journal events that the projection lacks."""
        if wallet_id not in self._database.wallets:
            return
        row = self.wallets.setdefault(wallet_id, ProjectedWallet(id=wallet_id, version=0))
        for recorded in self._database.events_by_wallet[wallet_id][row.version :]:
            self._fold(row, recorded)

    def _move_wallet(self, row: BalanceRow) -> None:
        stored = self.wallets.setdefault(row.id, self._head(row.id))
        stored.version, stored.hash = row.last_version, row.hash
        stored.balance = int(row.balance)
        stored.pending_debit = int(row.pending_debit)
        stored.pending_credit = int(row.pending_credit)

    def _put_transfer(self, row: TransferRow) -> None:
        stored = self.transfers.get((row.wallet_id, row.id))
        if row.created_version is None:
            self._settle(stored, row)
        elif stored is None or stored.version < row.version:
            self.transfers[row.wallet_id, row.id] = ProjectedTransfer(
                type=row.type,
                status=row.status,
                amount=int(row.amount),
                reference_id=row.reference_id,
                failure_reason=row.failure_reason,
                created_version=row.created_version,
                version=row.version,
                expires_at=row.expires_at,
                on_expiry=row.on_expiry,
                part=int(row.completed_amount or 0),
                refunds=row.refunds or "",
                refunded=stored.refunded if stored is not None else None,
            )

    def _settle(self, stored: ProjectedTransfer | None, row: TransferRow) -> None:
        if stored is not None and stored.version < row.version:
            stored.status = row.status
            stored.reference_id = row.reference_id
            stored.failure_reason = row.failure_reason
            stored.part = int(row.completed_amount or 0)
            stored.version = row.version

    def _fold(self, row: ProjectedWallet, recorded: RecordedEvent) -> None:
        wallet = recorded.wallet_after
        row.version, row.hash, row.balance = wallet.version, wallet.hash, wallet.balance
        row.pending_debit, row.pending_credit = wallet.pending_debit, wallet.pending_credit
        row.control = control_of(wallet)
        if not isinstance(recorded.event, TransferChanged):
            return
        transfer, counted = recorded.event.transfer, recorded.event.refunded
        if transfer.refunds is not None and counted is not None:
            original = self.transfers[wallet.id, transfer.refunds]
            original.refunded = Refunded(counted.completed, counted.pending)
        stored = self.transfers.get((wallet.id, transfer.id))
        self.transfers[wallet.id, transfer.id] = ProjectedTransfer(
            type=transfer.type,
            status=transfer.status,
            amount=transfer.amount,
            reference_id=transfer.reference_id,
            failure_reason=transfer.failure_reason,
            created_version=transfer.created_version,
            version=wallet.version,
            expires_at=transfer.expiry.at if transfer.expiry is not None else None,
            on_expiry=transfer.expiry.action if transfer.expiry is not None else None,
            part=transfer.part or 0,
            refunds=transfer.refunds or "",
            refunded=stored.refunded if stored is not None else None,
        )


class SimulatedStore:
    """Replaces `ProjectionStore`: the same statements over a faulty connection."""

    def __init__(self, tables: ProjectionTables, connection: Connection) -> None:
        self._tables = tables
        self._connection = connection

    async def project(self, batch: ProjectionChanges) -> list[RefusedWallet]:
        return await self._ask(lambda: self._tables.project(batch))

    async def repair(self, refused: RefusedWallet) -> None:
        await self._ask(lambda: self._tables.repair(refused))

    async def add_dead_letter(self, letter: DeadLetter) -> None:
        raise AssertionError(f"unexpected poison event: {letter.reason}")

    async def _ask(self, statement: Callable[[], T]) -> T:
        try:
            return await self._connection.execute(statement)
        except (JournalConflict, JournalUnavailable, OutcomeUnknown) as failure:
            raise OSError(str(failure)) from failure
