"""Lists of a wallet's transfers, newest first, with filters.

Theory of operation. A page scans an index that is in the order of the list, begins after the
cursor, and stops at the page's end. The index is chosen by the filter, not by the planner: by
what is refunded, by reference, by amount, by status and type, or all transfers. A range of amounts
has no index in the order of the list: if few transfers are in it, they are sorted. What else the
filter says is compared with each row. A filter that few rows pass would scan millions of them, so a
page ends after `SCANNED_MAX` rows, wherever it has got by then: it may be short, and has a cursor
all the same.

The write side has no such indexes; they would cost every commit. Its lists scan the journal, which
is stored in the order of the list, with the same bound. Only the list of all transfers is never
short (`specification/decisions/0039-fresh-lists-walk-the-journal.md`).

A range of time is a range of versions (`projections.wallet_history`).
"""

import base64
import binascii
import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from projections.wallet_history import version_at
from runtime.postgres.reads import ReadPool, Row
from wallet.ids import TransferId, WalletId
from wallet.representation import TransferView
from wallet.state import TransferStatus, TransferType

SCANNED_MAX: Final = 20_000
"""Rows per page: 10 to 40 ms."""

SORTED_MAX: Final = 1_000
"""Transfers with amounts in a range that are sorted rather than found among all."""

_NEWEST: Final = 2**63 - 1
_UNBOUNDED: Final = 2**62


class CursorError(ValueError):
    """A cursor that this API did not issue."""


class TransferFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filter of a transfer list; None matches all."""

    status: Literal["pending", "completed", "failed"] | None = None
    type: Literal["debit", "credit"] | None = None
    reference_id: str | None = None
    refunds: TransferId | None = None
    """Only refunds of this transfer."""
    amount_min: str | None = None
    """Decimal string in the wallet's currency, as is ``amount_max``; both inclusive."""
    amount_max: str | None = None
    created_from: datetime | None = None
    """Inclusive; ``created_before`` is exclusive."""
    created_before: datetime | None = None
    metadata: Mapping[str, str] = {}
    """Entries that a transfer must have, with these values."""

    @property
    def has_time(self) -> bool:
        return self.created_from is not None or self.created_before is not None

    @property
    def has_amounts(self) -> bool:
        return self.amount_min is not None or self.amount_max is not None

    @property
    def has_exact_amount(self) -> bool:
        return self.amount_min is not None and self.amount_min == self.amount_max


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


# Parameters of a scan: 1 wallet, 2 before and 3 after this created_version, 4 rows at most,
# 5 status, 6 type, 7 reference_id, 8 amount_min, 9 amount_max, 10 refunds. A page has more:
# 11 created_from, 12 created_before, 13 metadata, 14 rows of the page.
PAGE_TYPES: Final = (
    "uuid, bigint, bigint, bigint, text, text, text, text, text, uuid, timestamptz, timestamptz, "
    "text, bigint"
)
_SCAN_PARAMETERS: Final = 10

_MINOR: Final = "::text::numeric * ('1e' || w.scale)::numeric"

_MATCHES: Final = f"""($5::text IS NULL OR t.status = $5) AND ($6::text IS NULL OR t.type = $6)
    AND ($7::text IS NULL OR t.reference_id = $7)
    AND ($8::text IS NULL OR t.amount >= $8{_MINOR})
    AND ($9::text IS NULL OR t.amount <= $9{_MINOR})
    AND ($10::uuid IS NULL OR t.refunds = $10)
    AND ($11::timestamptz IS NULL OR t.created_at >= $11)
    AND ($12::timestamptz IS NULL OR t.created_at < $12)
    AND ($13::text IS NULL OR t.metadata::jsonb @> $13::jsonb)"""

# A transfer newer than the wallet's row may be stored before the events between the two.
_ALL: Final = """(SELECT *, created_version + 0 AS position FROM transfer_projections
        WHERE wallet_id = $1::uuid AND created_version <= w.version
            AND created_version < $2 AND created_version > $3
        ORDER BY created_version DESC LIMIT $4)"""


def _scan(condition: str) -> str:
    """A scan of an index that begins with what ``condition`` compares.

    Wallet and version are expressions in it, and in no other index. By the columns themselves the
    planner may prefer the index of all transfers, read all of the wallet's, and sort them.
    """
    return f"""(SELECT *, created_version + 0 AS position FROM transfer_projections
        WHERE coalesce(wallet_id, wallet_id) = $1::uuid AND {condition}
            AND created_version + 0 <= w.version
            AND created_version + 0 < $2::bigint AND created_version + 0 > $3::bigint
        ORDER BY created_version + 0 DESC LIMIT $4)"""


def _scan_by_status() -> str:
    """All statuses and types that the filter names, each by the index, merged."""
    branches = [
        _scan(
            f"status = '{status}' AND type = '{type}' "
            f"AND ($5::text IS NULL OR $5 = '{status}') AND ($6::text IS NULL OR $6 = '{type}')"
        )
        for status in TransferStatus
        for type in TransferType
    ]
    return f"""(SELECT * FROM ({" UNION ALL ".join(branches)}) merged
        ORDER BY position DESC LIMIT $4)"""


_BETWEEN: Final = f"""amount >= coalesce($8{_MINOR}, 0)
            AND amount <= coalesce($9{_MINOR}, 'infinity')"""

# The few transfers in a range of amounts, first in the order of the index and without versions.
# With these the planner looked for them in the index by status, in all of a wallet's transfers.
_AMOUNTS: Final = f"""(SELECT *, created_version + 0 AS position FROM (
        SELECT * FROM transfer_projections
        WHERE coalesce(wallet_id, wallet_id) = $1::uuid AND {_BETWEEN} ORDER BY amount LIMIT $4
    ) found
        WHERE created_version <= w.version AND created_version < $2 AND created_version > $3
        ORDER BY created_version DESC LIMIT $4)"""

_SCANS: Final = {
    "all": (_ALL, "created_version DESC"),
    "reference": (_scan("reference_id = $7::text"), "position DESC"),
    "refunds": (_scan("refunds = $10::uuid"), "position DESC"),
    "amount": (_scan(f"amount = $8{_MINOR}"), "position DESC"),
    "amounts": (_AMOUNTS, "created_version DESC"),
    "status": (_scan_by_status(), "position DESC"),
}
"""Scans, and their order."""


class _Statements(msgspec.Struct, frozen=True, kw_only=True):
    """A page, and where its scan ended if it ended early."""

    page: str
    scanned: str


def _projected(columns: str, scan: str, order: str) -> _Statements:
    # The wallet and its page in one statement, so in one snapshot: the page is the wallet's content
    # at that version. One row without a transfer: the wallet exists and the page is empty.
    return _Statements(
        page=f"""
SELECT t.*, w.currency, w.scale, w.version
FROM wallet_projections w LEFT JOIN LATERAL (
    SELECT t.transfer_id::text AS id, {columns} FROM {scan} t
    WHERE {_MATCHES} ORDER BY t.{order} LIMIT $14
) t ON true
WHERE w.wallet_id = $1::uuid ORDER BY t.created_version DESC
""",
        # The last condition is true, and gives a type to parameters that this scan lacks.
        scanned=f"""
SELECT t.created_version FROM wallet_projections w
CROSS JOIN LATERAL (SELECT * FROM {scan} t ORDER BY t.{order} OFFSET $4 - 1) t
WHERE w.wallet_id = $1::uuid
    AND coalesce($5::text, $6::text, $7::text, $8::text, $9::text, $10::uuid::text, '') IS NOT NULL
""",
    )


def _written(columns: str) -> str:
    return f"""
SELECT t.*, w.currency, w.scale, w.version
FROM wallets w LEFT JOIN LATERAL (
    SELECT t.id::text, {columns}
    FROM (
        SELECT transfer_id, previous_status, version FROM wallet_events
        WHERE wallet_id = $1::uuid AND version < $2 AND version > $3
        ORDER BY version DESC LIMIT $4
    ) e JOIN transfers t ON t.wallet_id = $1::uuid AND t.id = e.transfer_id
    WHERE e.transfer_id IS NOT NULL AND e.previous_status IS NULL AND {_MATCHES}
    ORDER BY e.version DESC LIMIT $14
) t ON true
WHERE w.id = $1::uuid ORDER BY t.created_version DESC
"""


_COUNT_AMOUNTS: Final = f"""
SELECT count(*) FROM wallet_projections w CROSS JOIN LATERAL (
    SELECT FROM transfer_projections
    WHERE coalesce(wallet_id, wallet_id) = $1::uuid AND {_BETWEEN} ORDER BY amount LIMIT $4
) found
WHERE w.wallet_id = $1::uuid
""".replace("$8", "$2").replace("$9", "$3")

_VERSIONS: Final = f"""
SELECT {version_at("w", "$2::timestamptz", at_or_before=False)} AS after,
    {version_at("w", "$3::timestamptz", at_or_before=False)} + 1 AS before
FROM wallets w WHERE w.id = $1::uuid
"""


class TransferLists:
    """Reads pages.

    ``written``, ``projected``: SQL for a transfer's columns on either side, of the table ``t``.
    ``view``: a row with them.
    """

    def __init__(
        self,
        reads: ReadPool,
        *,
        written: str,
        projected: str,
        view: Callable[[Row, WalletId], TransferView],
    ) -> None:
        self._reads = reads
        self._view = view
        self.written: Final = _written(written)
        self.projected: Final = {
            name: _projected(projected, *scan) for name, scan in _SCANS.items()
        }
        """By what is scanned."""
        self.count_amounts: Final = _COUNT_AMOUNTS

    async def page(
        self,
        wallet_id: WalletId,
        wanted: TransferFilter,
        *,
        limit: int,
        cursor: str | None,
        min_version: int,
        strong: bool,
    ) -> TransferPageView | None:
        """A page of at most ``limit`` transfers; None if the wallet doesn't exist.

        The cursor is a created_version. So pages neither skip nor repeat transfers while new ones
        arrive, whichever tables each page was read from.

        Raises:
            CursorError: this API did not issue ``cursor``.
        """
        after, before = 0, _NEWEST if cursor is None else _decode_cursor(cursor)
        if wanted.has_time:
            after, before = await self._versions(wallet_id, wanted, before)
        scan = SCANNED_MAX if wanted != TransferFilter() else _UNBOUNDED
        arguments = (wallet_id, before, after, scan, *_conditions(wanted), limit + 1)
        statements = self.projected["all"]
        rows: list[Row] = []
        if not strong:
            statements = self.projected[await self._index_for(wallet_id, wanted)]
            rows = await self._reads.rows(statements.page, *arguments)
        is_projected = bool(rows) and rows[0]["version"] >= max(min_version, 1)
        if not is_projected:
            rows = await self._reads.rows(self.written, *arguments)
        if not rows:
            return None
        listed = [row for row in rows[:limit] if row["id"] is not None]
        _assert_page(listed, before)
        version: int = rows[0]["version"]
        following: int | None
        if len(rows) > limit:
            following = listed[-1]["created_version"]
        elif scan == _UNBOUNDED:
            following = None
        elif is_projected:
            following = await self._scanned(statements, arguments, listed)
        else:
            last = min(before - 1, version) - scan + 1
            following = last if last > max(after, 1) + 1 else None
        return TransferPageView(
            items=[self._view(row, wallet_id) for row in listed],
            next_cursor=None if following is None else _encode_cursor(following),
            wallet_version=version,
        )

    async def _index_for(self, wallet_id: WalletId, wanted: TransferFilter) -> str:
        if wanted.refunds is not None:
            return "refunds"
        if wanted.reference_id is not None:
            return "reference"
        if wanted.has_exact_amount:
            return "amount"
        if wanted.has_amounts and await self._are_few(wallet_id, wanted):
            return "amounts"
        return "all" if wanted.status is None and wanted.type is None else "status"

    async def _are_few(self, wallet_id: WalletId, wanted: TransferFilter) -> bool:
        """Whether few transfers have an amount in the range."""
        bounds = wanted.amount_min, wanted.amount_max
        row = await self._reads.row(_COUNT_AMOUNTS, wallet_id, *bounds, SORTED_MAX + 1)
        return row is not None and row[0] <= SORTED_MAX

    async def _versions(
        self, wallet_id: WalletId, wanted: TransferFilter, before: int
    ) -> tuple[int, int]:
        """The versions of the filter's times, both exclusive, and at most ``before``."""
        row = await self._reads.row(
            _VERSIONS, wallet_id, wanted.created_from, wanted.created_before
        )
        if row is None:
            return 0, before
        after = row["after"] if wanted.created_from is not None else 0
        return after, min(row["before"], before) if wanted.created_before is not None else before

    async def _scanned(
        self, statements: _Statements, arguments: tuple[object, ...], listed: list[Row]
    ) -> int | None:
        """Where the scan of a short page ended; None: at the end of the list."""
        row = await self._reads.row(statements.scanned, *arguments[:_SCAN_PARAMETERS])
        if row is None:
            return None
        # New transfers may have moved it since, to before the last one that is listed.
        found: int = row["created_version"]
        return min(found, listed[-1]["created_version"]) if listed else found


def _conditions(wanted: TransferFilter) -> tuple[object, ...]:
    return (
        wanted.status,
        wanted.type,
        wanted.reference_id,
        wanted.amount_min,
        wanted.amount_max,
        wanted.refunds,
        wanted.created_from,
        wanted.created_before,
        msgspec.json.encode(wanted.metadata).decode() if wanted.metadata else None,
    )


def _assert_page(items: list[Row], before: int) -> None:
    """Postcondition of a page: newest first, no duplicates, none newer than the wallet or the
    cursor."""
    for row in items:
        assert row["created_version"] <= row["version"], "INV-11 no transfer is ahead of its wallet"
        assert row["created_version"] < before, "INV-10 a transfer has a version of its own"
        before = row["created_version"]


def _encode_cursor(created_version: int) -> str:
    return base64.urlsafe_b64encode(struct.pack(">q", created_version)).decode().rstrip("=")


def _decode_cursor(cursor: str) -> int:
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=")
        (version,) = struct.unpack(">q", raw)
    except (binascii.Error, struct.error, ValueError) as error:
        raise CursorError(cursor) from error
    return int(version)
