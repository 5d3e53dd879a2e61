"""Lists of wallets, newest first, with filters.

As `projections.transfer_list`: the filter chooses an index that is in the order of the list, what
else it says is compared with each row, and a page ends after `SCANNED_MAX` rows. A prefix of
reference_ids and metadata have no index in the order of the list. If few wallets have them these
are sorted, else all wallets are scanned.

The write side has one index, by age. Columns that an index has never change there, so writes of a
wallet's balance stay on its page (HOT).
"""

import base64
import binascii
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from projections.transfer_list import CursorError
from runtime.postgres.reads import ReadPool, Row
from wallet.representation import WalletView

SCANNED_MAX: Final = 20_000
"""Rows per page."""

SORTED_MAX: Final = 1_000
"""Wallets with one prefix, or with some metadata, that are sorted rather than found among all."""

_COUNTED_MAX: Final = SORTED_MAX + 1

_SHORT_SCAN: Final = 1_000
"""Rows that are compared with metadata before its index is asked: 3 ms."""

_NEWEST: Final = (datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Position = tuple[datetime, UUID]
"""Of a wallet in the list: its creation, and its id."""


class WalletFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filter of a wallet list; None matches all."""

    reference_id_prefix: str | None = None
    currency: str | None = None
    status: str | None = None
    created_from: datetime | None = None
    """Inclusive; ``created_before`` is exclusive."""
    created_before: datetime | None = None
    metadata: Mapping[str, str] = {}
    """Entries that a wallet must have, with these values."""

    def matches(self, wallet: WalletView) -> bool:
        """Whether ``wallet`` is in the list."""
        return (
            (wallet.reference_id or "").startswith(self.reference_id_prefix or "")
            and self.currency in (None, wallet.currency)
            and self.status in (None, wallet.status)
            and (self.created_from is None or wallet.created_at >= self.created_from)
            and (self.created_before is None or wallet.created_at < self.created_before)
            and self.metadata.items() <= wallet.metadata.items()
        )


class WalletPage(msgspec.Struct, frozen=True, kw_only=True):
    """Wallets, newest first."""

    wallets: list[WalletView]
    next_cursor: str | None


# Parameters of a scan: 1 and 2 before this position, 3 created_from, 4 created_before, 5 rows at
# most, 6 currency, 7 status. A page has more: 8 prefix, 9 metadata, 10 rows of the page.
PAGE_TYPES: Final = (
    "timestamptz, uuid, timestamptz, timestamptz, bigint, text, text, text, text, bigint"
)
_SCAN_PARAMETERS: Final = 7
_ROWS_MAX, _METADATA = 4, 8
"""Of these parameters, counted from 0."""

_TYPED: Final = "coalesce($6::text, $7::text, '') IS NOT NULL"
"""True. Gives a type to parameters that a scan lacks."""

_SCAN_TYPED: Final = "coalesce($5::bigint, 0) >= 0"
"""The same where the number of rows is missing."""

_MATCHES: Final = """($6::text IS NULL OR currency = $6) AND ($7::text IS NULL OR status = $7)
    AND ($8::text IS NULL OR starts_with(reference_id, $8))
    AND ($9::text IS NULL OR metadata::jsonb @> $9::jsonb)"""


_RANGE: Final = """{created} >= coalesce($3::timestamptz, '-infinity'){zone}
        AND {created} < coalesce($4::timestamptz, 'infinity'){zone}"""


def _scan(table: str, id: str, condition: str) -> str:
    """A scan of an index that has expressions in place of columns.

    Ids are an expression, so that statements which look up a wallet by its id never use these
    indexes. With a condition, the time is one, too: by the column the planner may prefer the index
    of all wallets, which is in the same order, and drop what doesn't match.
    """
    zone = " AT TIME ZONE 'UTC'" if condition else ""
    created, key = f"(created_at{zone})", f"coalesce({id}, {id})"
    return f"""SELECT *, {created} AS created, {key} AS key FROM {table}
    WHERE ({created}, {key}) < ($1::timestamptz{zone}, $2::uuid)
        AND {_RANGE.format(created=created, zone=zone)}{condition}
    ORDER BY {created} DESC, {key} DESC LIMIT $5"""


class _Statements(msgspec.Struct, frozen=True, kw_only=True):
    """A page, and where its scan ended if it ended early."""

    page: str
    scanned: str


def _statements(table: str, id: str, columns: str, condition: str = "") -> _Statements:
    scan = _scan(table, id, condition)
    return _Statements(
        page=f"""
SELECT {id}::text AS id, {columns} FROM ({scan}) w
WHERE {_MATCHES} ORDER BY created DESC, key DESC LIMIT $10
""",
        scanned=f"""
SELECT created_at, {id}::text AS id FROM ({scan}) w
WHERE {_TYPED} ORDER BY created DESC, key DESC OFFSET $5 - 1
""",
    )


# In the index's collation, in which a prefix is a range.
_WITH_PREFIX: Final = """SELECT * FROM wallet_projections
    WHERE reference_id COLLATE "C" >= $8 AND reference_id COLLATE "C" < $8 || chr(1114111)
    LIMIT $5"""


# Without an order or a limit that a scan of another index could serve: the planner is left with
# this one, and with reading the whole table.
_WITH_METADATA: Final = """SELECT * FROM wallet_projections
    WHERE metadata IS NOT NULL AND metadata::jsonb @> $9::jsonb"""


def _sorted(columns: str, found: str) -> str:
    """All wallets that ``found`` selects, matched and sorted."""
    return f"""
SELECT wallet_id::text AS id, {columns}
FROM (SELECT * FROM ({found}) found OFFSET 0) w
WHERE {_MATCHES} AND {_SCAN_TYPED}
    AND (created_at, wallet_id) < ($1::timestamptz, $2::uuid)
    AND {_RANGE.format(created="created_at", zone="")}
ORDER BY created_at DESC, wallet_id DESC LIMIT $10
"""


_COUNT_PREFIXED: Final = """
SELECT count(*) FROM (
    SELECT FROM wallet_projections
    WHERE reference_id COLLATE "C" >= $1 AND reference_id COLLATE "C" < $1 || chr(1114111)
    LIMIT $2
) found
"""

# The limit is a number, since for one that it doesn't know the planner expects a tenth of the rows,
# and prefers to read the table.
_COUNT_METADATA: Final = f"""
SELECT count(*) FROM (
    SELECT FROM wallet_projections
    WHERE metadata IS NOT NULL AND metadata::jsonb @> $1::jsonb LIMIT {_COUNTED_MAX}
) found
"""


class WalletLists:
    """Reads pages.

    ``columns``: SQL for a wallet's columns, without its id. ``view``: a row with them.
    """

    def __init__(self, reads: ReadPool, columns: str, view: Callable[[Row], WalletView]) -> None:
        self._reads = reads
        self._view = view
        projected = "wallet_projections", "wallet_id", columns
        self.written: Final = _statements("wallets", "id", columns)
        self.projected: Final = {
            "age": _statements(*projected),
            "currency": _statements(*projected, " AND currency = $6"),
            "status": _statements(*projected, " AND status = $7 AND status <> 'active'"),
        }
        """By what is scanned."""
        self.prefixed: Final = _sorted(columns, _WITH_PREFIX)
        self.count_prefixed: Final = _COUNT_PREFIXED
        self.with_metadata: Final = _sorted(columns, _WITH_METADATA)
        self.count_metadata: Final = _COUNT_METADATA

    async def page(
        self, wanted: WalletFilter, *, limit: int, cursor: str | None, strong: bool
    ) -> WalletPage:
        """A page of at most ``limit`` wallets.

        Raises:
            CursorError: this API did not issue ``cursor``.
        """
        before = _NEWEST if cursor is None else _decode_cursor(cursor)
        if wanted.created_before is not None:
            # The scan begins there: it would pass over all newer wallets otherwise.
            before = min(before, (wanted.created_before, UUID(int=0)))
        metadata = msgspec.json.encode(wanted.metadata).decode() if wanted.metadata else None
        arguments = (
            *before,
            wanted.created_from,
            wanted.created_before,
            SCANNED_MAX,
            wanted.currency,
            wanted.status,
            wanted.reference_id_prefix,
            metadata,
            limit + 1,
        )
        statements = self.written if strong else self.projected[_index_for(wanted)]
        rows = None if strong else await self._rows_at_once(wanted, statements, arguments, limit)
        if rows is not None:
            return self._made(rows, limit)
        rows = await self._reads.rows(statements.page, *arguments)
        page = self._made(rows, limit)
        if page.next_cursor is not None:
            return page
        scanned = await self._reads.row(statements.scanned, *arguments[:_SCAN_PARAMETERS])
        if scanned is None:
            return page
        # New wallets may have moved it since, to before the last one that is listed.
        position = min([_position(scanned), *map(_position, rows[-1:])])
        return msgspec.structs.replace(page, next_cursor=_encode_cursor(position))

    async def _rows_at_once(
        self,
        wanted: WalletFilter,
        statements: _Statements,
        arguments: tuple[object, ...],
        limit: int,
    ) -> list[Row] | None:
        """The page's rows without a long scan: if few wallets have the prefix or the metadata, or
        so many have the metadata that a short scan finds them. None: it takes a long one."""
        prefix = wanted.reference_id_prefix
        if prefix is not None and await self._are_few(_COUNT_PREFIXED, prefix, SORTED_MAX + 1):
            return await self._reads.rows(self.prefixed, *arguments)
        if not wanted.metadata:
            return None
        # First, since to count a common entry is to read all of its postings.
        rows = await self._reads.rows(statements.page, *_scanning(arguments, _SHORT_SCAN))
        if len(rows) > limit:
            return rows
        if await self._are_few(_COUNT_METADATA, arguments[_METADATA]):
            return await self._reads.rows(self.with_metadata, *arguments)
        return None

    async def _are_few(self, count: str, *arguments: object) -> bool:
        row = await self._reads.row(count, *arguments)
        return row is not None and row[0] <= SORTED_MAX

    def _made(self, rows: list[Row], limit: int) -> WalletPage:
        listed = rows[:limit]
        positions = [_position(row) for row in listed]
        assert positions == sorted(positions, reverse=True), "a list is in its order"
        return WalletPage(
            wallets=[self._view(row) for row in listed],
            next_cursor=_encode_cursor(positions[-1]) if len(rows) > limit else None,
        )


def _scanning(arguments: tuple[object, ...], rows_max: int) -> tuple[object, ...]:
    """The arguments of a page that scans fewer rows."""
    return (*arguments[:_ROWS_MAX], min(rows_max, SCANNED_MAX), *arguments[_ROWS_MAX + 1 :])


def _index_for(wanted: WalletFilter) -> str:
    if wanted.status not in (None, "active"):
        return "status"
    return "age" if wanted.currency is None else "currency"


def _position(row: Row) -> Position:
    return row["created_at"], UUID(row["id"])


def _encode_cursor(position: Position) -> str:
    created_at, wallet_id = position
    packed = struct.pack(">q16s", (created_at - _EPOCH) // _MICROSECOND, wallet_id.bytes)
    return base64.urlsafe_b64encode(packed).decode()


def _decode_cursor(cursor: str) -> Position:
    try:
        microseconds, wallet_id = struct.unpack(
            ">q16s", base64.urlsafe_b64decode(cursor.encode("ascii"))
        )
    except (binascii.Error, struct.error, ValueError) as error:
        raise CursorError(cursor) from error
    return _time(microseconds), UUID(bytes=wallet_id)


def _time(microseconds: int) -> datetime:
    """The time that many microseconds after 1970, or the earliest or latest that there is."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return (datetime.max if microseconds > 0 else datetime.min).replace(tzinfo=UTC)
