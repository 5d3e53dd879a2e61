"""Reads: from the projection tables, which never wait for a write, or from the write side's tables.

A strong read, and a read with a ``min_version`` that the projection hasn't reached, use the write
side's tables. Postgres is the system of record, so they are never behind an acknowledged write,
whichever shard wrote it and whether or not that shard is alive.

A wallet's transfers are listed in the order of its events. The projection has an index for it; the
write side scans the journal, which is stored in that order.
"""

import asyncio
import base64
import binascii
import math
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Literal

import asyncpg
import msgspec
from msgspec import UNSET

from projections.grouped_reads import GroupedReads
from wallet.ids import TransferId, WalletId
from wallet.money import from_minor
from wallet.representation import TransferView, WalletView, effect_of
from wallet.state import OnExpiry, TransferType

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
    t.on_expiry"""
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

# The wallet and its page in one statement, so in one snapshot: the page is the wallet's content at
# that version. One row without a transfer: the wallet exists and the page is empty.
_PROJECTED_TRANSFERS: Final = f"""
SELECT t.*, w.currency, w.scale, w.version
FROM wallet_projections w LEFT JOIN LATERAL (
    SELECT t.transfer_id::text AS id, {_PROJECTED_COLUMNS}
    FROM transfer_projections t
    -- A newer transfer may be stored before the events between it and the wallet's row.
    WHERE t.wallet_id = $1::uuid AND t.created_version < $2 AND t.created_version <= w.version
        AND ($3::text IS NULL OR t.status = $3) AND ($4::text IS NULL OR t.type = $4)
    ORDER BY t.created_version DESC LIMIT $5
) t ON true
WHERE w.wallet_id = $1::uuid ORDER BY t.created_version DESC
"""
_WRITTEN_TRANSFERS: Final = f"""
SELECT t.*, w.currency, w.scale, w.version
FROM wallets w LEFT JOIN LATERAL (
    SELECT t.id::text, {_WRITTEN_COLUMNS}
    FROM wallet_events e JOIN transfers t ON t.wallet_id = $1::uuid AND t.id = e.transfer_id
    WHERE e.wallet_id = $1::uuid AND e.version < $2
        AND e.transfer_id IS NOT NULL AND e.previous_status IS NULL
        AND ($3::text IS NULL OR t.status = $3) AND ($4::text IS NULL OR t.type = $4)
    ORDER BY e.version DESC LIMIT $5
) t ON true
WHERE w.id = $1::uuid ORDER BY t.created_version DESC
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

_NEWEST: Final = 2**63 - 1

Row = asyncpg.Record

_FAILURES: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)


class CursorError(ValueError):
    """A cursor that this API did not issue."""


class TransferFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filter of a transfer list; None matches all."""

    status: Literal["pending", "completed", "failed"] | None = None
    type: Literal["debit", "credit"] | None = None


class TransferPageView(msgspec.Struct, frozen=True, kw_only=True):
    """Transfers, newest first."""

    items: list[TransferView]
    next_cursor: Annotated[
        str | None,
        msgspec.Meta(description="Pass as `cursor` for the next page; null on the last page."),
    ]
    wallet_version: Annotated[
        int, msgspec.Meta(description="Wallet version at which the page was read.")
    ]


class FoundTransfer(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer and its wallet's version. ``transfer`` None: the wallet has none with this id."""

    transfer: TransferView | None
    wallet_version: int
    """The wallet's version at the read, or an earlier one."""


class ReadUnavailable(Exception):
    """Postgres did not respond to a read."""


class Queries:
    """All reads of the API. The composition root owns the pool."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._forked: frozenset[str] = frozenset()
        self._forked_read_at = -math.inf
        self._projected_wallets = self._grouped(_PROJECTED_WALLET, "uuid")
        self._written_wallets = self._grouped(_WRITTEN_WALLET, "uuid")
        self._projected_references = self._grouped(_PROJECTED_BY_REFERENCE, "text")
        self._written_references = self._grouped(_WRITTEN_BY_REFERENCE, "text")
        self._projected_transfers = self._grouped(_PROJECTED_TRANSFER, "uuid", "uuid")
        self._written_transfers = self._grouped(_WRITTEN_TRANSFER, "uuid", "uuid")
        self._forked_now = self._grouped(_IS_FORKED, "uuid")

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

        The cursor is the created_version of the page's last transfer. So pages neither skip nor
        repeat transfers while new ones arrive, whichever tables each page was read from.

        Raises:
            CursorError: this API did not issue ``cursor``.
        """
        before = _NEWEST if cursor is None else _decode_cursor(cursor)
        page = (wallet_id, before, transfer_filter.status, transfer_filter.type, limit + 1)
        rows: list[Row] = []
        if not strong:
            rows = await self._rows(_PROJECTED_TRANSFERS, *page)
        if not rows or rows[0]["version"] < max(min_version, 1):
            rows = await self._rows(_WRITTEN_TRANSFERS, *page)
        if not rows:
            return None
        listed = [row for row in rows[:limit] if row["id"] is not None]
        _assert_page(listed, before)
        has_more = len(rows) > limit
        return TransferPageView(
            items=[_transfer_view(row, wallet_id) for row in listed],
            next_cursor=_encode_cursor(listed[-1]["created_version"]) if has_more else None,
            wallet_version=rows[0]["version"],
        )

    async def dead_letters(self) -> int:
        """Number of dead letters."""
        row = await self._row("SELECT count(*) FROM projection_dead_letters")
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
            self._forked = frozenset(row[0] for row in await self._rows(_FORKED))
        return wallet_id in self._forked

    async def forked_wallets(self) -> int:
        """Number of wallets in quarantine."""
        row = await self._row("SELECT count(*) FROM forked_wallets")
        return int(row[0]) if row is not None else 0

    async def ping(self) -> None:
        await self._row("SELECT 1")

    def _grouped(self, sql: str, *types: str) -> GroupedReads:
        return GroupedReads(
            sql, types, fetch_one=self._row, fetch_many=self._rows, timeout_s=self._timeout_s
        )

    async def _of(self, reads: GroupedReads, *key: str) -> Row | None:
        try:
            return await reads.row(*key)
        except TimeoutError as error:
            raise ReadUnavailable("no response in time") from error

    async def _row(self, sql: str, *arguments: object) -> Row | None:
        row: Row | None = await self._execute(lambda: self._pool.fetchrow(sql, *arguments))
        return row

    async def _rows(self, sql: str, *arguments: object) -> list[Row]:
        rows: list[Row] = await self._execute(lambda: self._pool.fetch(sql, *arguments))
        return rows

    async def _execute(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        try:
            # Includes the wait for a connection: a read never queues longer than this.
            async with asyncio.timeout(self._timeout_s):
                return await operation()
        except _FAILURES as error:
            raise ReadUnavailable(f"{type(error).__name__}: {error}") from error


def _metadata(text: str | None) -> Mapping[str, str]:
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}


def _assert_page(items: list[Row], before: int) -> None:
    """Postcondition of a page: newest first, no duplicates, none newer than the wallet or the
    cursor."""
    for row in items:
        assert row["created_version"] <= row["version"], "INV-11 no transfer is ahead of its wallet"
        assert row["created_version"] < before, "INV-10 a transfer has a version of its own"
        before = row["created_version"]


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
    )


def _part(amount: str | None, scale: int) -> str | msgspec.UnsetType:
    return UNSET if amount is None else from_minor(int(amount), scale)


def _left(row: Row) -> str | msgspec.UnsetType:
    """What is still held of a transfer of which a part was completed."""
    if row["completed_amount"] is None or row["status"] != "pending":
        return UNSET
    return from_minor(int(row["amount"]) - int(row["completed_amount"]), row["scale"])


def _encode_cursor(created_version: int) -> str:
    return base64.urlsafe_b64encode(struct.pack(">q", created_version)).decode().rstrip("=")


def _decode_cursor(cursor: str) -> int:
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=")
        (version,) = struct.unpack(">q", raw)
    except (binascii.Error, struct.error, ValueError) as error:
        raise CursorError(cursor) from error
    return int(version)
