"""Reads: from the projection tables, which never wait for a write, or from the write side's tables.

A strong read, and a read with a ``min_version`` that the projection hasn't reached, use the write
side's tables. Postgres is the system of record, so they are never behind an acknowledged write,
whichever shard wrote it and whether or not that shard is alive.

Lists are in `projections.transfer_list`, past wallets in `projections.wallet_history`.
"""

import math
import time
from collections.abc import Mapping
from typing import Final

import asyncpg
import msgspec
from msgspec import UNSET

from projections.grouped_reads import GroupedReads
from projections.statements import Statements
from projections.transfer_list import TransferFilter, TransferLists, TransferPageView
from projections.wallet_history import WalletHistory
from projections.wallet_list import WalletLists
from runtime.postgres.reads import ReadPool, ReadUnavailable, Row
from wallet.ids import TransferId, WalletId
from wallet.money import from_minor
from wallet.representation import TransferView, WalletView, effect_of, refunded_fields
from wallet.state import OnExpiry, Refunded, TransferType

_WALLET_COLUMNS: Final = """reference_id, currency, scale, status, balance::text,
    pending_debit::text, pending_credit::text, version, metadata, created_at, updated_at, frozen,
    frozen_reason, overdraft_limit::text"""

_PROJECTED_WALLET: Final = f"""
SELECT wallet_id::text AS id, {_WALLET_COLUMNS} FROM wallet_projections WHERE wallet_id = $1::uuid
"""
_WRITTEN_WALLET: Final = f"""
SELECT id::text, {_WALLET_COLUMNS} FROM wallets WHERE id = $1::uuid
"""
_PROJECTED_BY_REFERENCE: Final = f"""
SELECT wallet_id::text AS id, {_WALLET_COLUMNS} FROM wallet_projections WHERE reference_id = $1
"""
_WRITTEN_BY_REFERENCE: Final = f"""
SELECT w.id::text, {_WALLET_COLUMNS.replace("reference_id", "w.reference_id")}
FROM wallet_references r JOIN wallets w ON w.id = r.wallet_id WHERE r.reference_id = $1
"""
_TRANSFER_COLUMNS: Final = """t.type, t.status, t.amount::text, t.reference_id, t.metadata,
    t.failure_reason, t.created_at, t.settled_at, t.created_version, t.expires_at,
    t.on_expiry, t.refunds::text, t.refunded_amount::text, t.refund_pending_amount::text"""
_PROJECTED_COLUMNS: Final = f"{_TRANSFER_COLUMNS}, t.completed_amount::text AS completed_amount"
_WRITTEN_COLUMNS: Final = f"{_TRANSFER_COLUMNS}, t.settled_amount::text AS completed_amount"

_PROJECTED_TRANSFER: Final = f"""
SELECT t.transfer_id::text AS id, {_PROJECTED_COLUMNS}, w.currency, w.scale, w.version
FROM wallet_projections w
LEFT JOIN transfer_projections t ON t.wallet_id = w.wallet_id AND t.transfer_id = $2::uuid
WHERE w.wallet_id = $1::uuid
"""
_WRITTEN_TRANSFER: Final = f"""
SELECT t.id::text, {_WRITTEN_COLUMNS}, w.currency, w.scale, w.version
FROM wallets w LEFT JOIN transfers t ON t.wallet_id = w.id AND t.id = $2::uuid
WHERE w.id = $1::uuid
"""

PLANNER_SETTINGS: Final = {
    "jit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
}
"""For the connections of `Queries`. Every read is a few rows by an index, or an ordered index scan.
Statistics of a new table suggest other plans: without these settings the planner sorted all events
of a wallet for one page (a second for 400,000), and started parallel workers for 50 rows."""

_FORKED: Final = "SELECT wallet_id::text FROM forked_wallets"
_IS_FORKED: Final = "SELECT FROM forked_wallets WHERE wallet_id = $1::uuid"
_FORKED_FOR_S: Final = 1.0
"""How long the list of forked wallets is used. It is nearly always empty."""


class FoundTransfer(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer and its wallet's version. ``transfer`` None: the wallet has none with this id."""

    transfer: TransferView | None
    wallet_version: int
    """The wallet's version at the read, or an earlier one."""


class Queries:
    """All reads of the API. The composition root owns the pool."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float) -> None:
        self._reads = ReadPool(pool, timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self.transfer_lists: Final = TransferLists(
            self._reads,
            written=_WRITTEN_COLUMNS,
            projected=_PROJECTED_COLUMNS,
            view=_transfer_view,
        )
        self.wallet_lists: Final = WalletLists(self._reads, _WALLET_COLUMNS, _wallet_view)
        self.statements: Final = Statements(self._reads)
        self.history: Final = WalletHistory(self._reads, _wallet_view)
        self._forked: frozenset[str] = frozenset()
        self._forked_read_at = -math.inf
        self._projected_wallets = self._grouped(_PROJECTED_WALLET, "uuid")
        self._written_wallets = self._grouped(_WRITTEN_WALLET, "uuid")
        self._projected_references = self._grouped(_PROJECTED_BY_REFERENCE, "text")
        self._written_references = self._grouped(_WRITTEN_BY_REFERENCE, "text")
        self._projected_transfers = self._grouped(_PROJECTED_TRANSFER, "uuid", "uuid")
        self._written_transfers = self._grouped(_WRITTEN_TRANSFER, "uuid", "uuid")
        self._forked_now = self._grouped(_IS_FORKED, "uuid")

    @property
    def reads(self) -> ReadPool:
        """The connections of all reads, also of those of the journal."""
        return self._reads

    async def wallet(
        self, wallet_id: WalletId, *, min_version: int = 0, strong: bool = False
    ) -> WalletView | None:
        """The wallet, at ``min_version`` or later if it has reached it; None if it doesn't exist.

        ``strong``: read the write side's tables, not the projection.
        """
        if not strong:
            row = await self._of(self._projected_wallets, wallet_id)
            if row is not None and row["version"] >= max(min_version, 1):
                return _wallet_view(row)
        row = await self._of(self._written_wallets, wallet_id)
        return _wallet_view(row) if row is not None else None

    async def wallet_by_reference(
        self, reference_id: str, *, min_version: int = 0, strong: bool = False
    ) -> WalletView | None:
        """As `wallet`, by the wallet's reference_id."""
        if not strong:
            row = await self._of(self._projected_references, reference_id)
            if row is not None and row["version"] >= max(min_version, 1):
                return _wallet_view(row)
        row = await self._of(self._written_references, reference_id)
        return _wallet_view(row) if row is not None else None

    async def transfer(
        self,
        wallet_id: WalletId,
        transfer_id: TransferId,
        *,
        min_version: int = 0,
        strong: bool = False,
    ) -> FoundTransfer | None:
        """A transfer at ``min_version`` of its wallet or later; None if there is no such wallet.

        A missing transfer is never reported from the projection: the write side is read then.
        """
        if not strong:
            row = await self._of(self._projected_transfers, wallet_id, transfer_id)
            if row is not None and row["id"] and row["version"] >= max(min_version, 1):
                return _found_transfer(row, wallet_id)
        row = await self._of(self._written_transfers, wallet_id, transfer_id)
        return _found_transfer(row, wallet_id) if row is not None else None

    async def transfers(
        self,
        wallet_id: WalletId,
        transfer_filter: TransferFilter,
        *,
        limit: int,
        cursor: str | None,
        min_version: int = 0,
        strong: bool = False,
    ) -> TransferPageView | None:
        """A page of at most ``limit`` transfers; None if the wallet doesn't exist.

        Raises:
            CursorError: this API did not issue ``cursor``.
        """
        return await self.transfer_lists.page(
            wallet_id,
            transfer_filter,
            limit=limit,
            cursor=cursor,
            min_version=min_version,
            strong=strong,
        )

    async def dead_letters(self) -> int:
        """Number of dead letters."""
        row = await self._reads.row("SELECT count(*) FROM projection_dead_letters")
        return int(row[0]) if row is not None else 0

    async def is_forked(self, wallet_id: WalletId, *, strong: bool = False) -> bool:
        """Whether the wallet is in quarantine: the database has lost some of its latest events.

        As of the last second; ``strong``: now.
        """
        if strong:
            return await self._of(self._forked_now, wallet_id) is not None
        now = time.monotonic()
        if now - self._forked_read_at > _FORKED_FOR_S:
            # Set first: reads that come meanwhile use what is known.
            self._forked_read_at = now
            self._forked = frozenset(row[0] for row in await self._reads.rows(_FORKED))
        return wallet_id in self._forked

    async def forked_wallets(self) -> int:
        """Number of wallets in quarantine."""
        row = await self._reads.row("SELECT count(*) FROM forked_wallets")
        return int(row[0]) if row is not None else 0

    async def ping(self) -> None:
        await self._reads.row("SELECT 1")

    def _grouped(self, sql: str, *types: str) -> GroupedReads:
        return GroupedReads(
            sql,
            types,
            fetch_one=self._reads.row,
            fetch_many=self._reads.rows,
            timeout_s=self._timeout_s,
        )

    async def _of(self, reads: GroupedReads, *key: str) -> Row | None:
        try:
            return await reads.row(*key)
        except TimeoutError as error:
            raise ReadUnavailable("no response in time") from error


def _metadata(text: str | None) -> Mapping[str, str]:
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}


def _wallet_view(row: Row) -> WalletView:
    assert row["version"] >= 1, "INV-10 a wallet's creation is its version 1"
    scale = row["scale"]
    pending_credit, pending_debit = int(row["pending_credit"]), int(row["pending_debit"])
    assert pending_credit >= 0, "INV-2 negative pending_credit"
    assert pending_debit >= 0, "INV-2 negative pending_debit"
    return WalletView(
        id=row["id"],
        reference_id=row["reference_id"],
        currency=row["currency"],
        scale=scale,
        status=row["status"],
        balance=from_minor(int(row["balance"]), scale),
        pending_credit=from_minor(pending_credit, scale),
        pending_debit=from_minor(pending_debit, scale),
        version=row["version"],
        metadata=_metadata(row["metadata"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        overdraft_limit=from_minor(int(row["overdraft_limit"]), scale),
        frozen=row["frozen"],
        frozen_reason=row["frozen_reason"],
    )


def _found_transfer(row: Row, wallet_id: WalletId) -> FoundTransfer:
    transfer = _transfer_view(row, wallet_id) if row["id"] is not None else None
    return FoundTransfer(transfer=transfer, wallet_version=row["version"])


def _transfer_view(row: Row, wallet_id: WalletId) -> TransferView:
    is_settled = row["settled_at"] is not None
    assert is_settled == (row["status"] != "pending"), "INV-4 settled is what is not pending"
    return TransferView(
        id=row["id"],
        wallet_id=wallet_id,
        type=row["type"],
        status=row["status"],
        amount=from_minor(int(row["amount"]), row["scale"]),
        currency=row["currency"],
        reference_id=row["reference_id"],
        metadata=_metadata(row["metadata"]),
        failure_reason=row["failure_reason"],
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        effect=effect_of(TransferType(row["type"])),
        expires_at=row["expires_at"] or UNSET,
        completed_amount=_part(row["completed_amount"], row["scale"]),
        pending_amount=_left(row),
        on_expiry=UNSET if row["expires_at"] is None else row["on_expiry"] or OnExpiry.FAIL,
        refunds=row["refunds"] or UNSET,
        **refunded_fields(_refunded(row), row["scale"]),
    )


def _refunded(row: Row) -> Refunded | None:
    if row["refunded_amount"] is None:
        return None
    return Refunded(int(row["refunded_amount"]), int(row["refund_pending_amount"]))


def _part(amount: str | None, scale: int) -> str | msgspec.UnsetType:
    return UNSET if amount is None else from_minor(int(amount), scale)


def _left(row: Row) -> str | msgspec.UnsetType:
    """What is still held of a transfer of which a part was completed."""
    if row["completed_amount"] is None or row["status"] != "pending":
        return UNSET
    return from_minor(int(row["amount"]) - int(row["completed_amount"]), row["scale"])
