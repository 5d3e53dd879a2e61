"""The service's tables as the checker reads them: one statement each, and its rows as facts.

Every statement takes a range of wallets, from ``$1`` (excluded) to ``$2`` (included), so that a
check of any size is many small snapshots. Amounts are read as text: they have up to 38 digits.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from verification.chain import ContentFacts, EventChain, Head, Rewound
from verification.facts import (
    Balances,
    Control,
    ExpiryRow,
    JournalEvent,
    KeyRow,
    OutboxRow,
    Refunded,
    TransferRow,
    WalletRow,
)

Row = asyncpg.Record | Sequence[Any]

_metadata: Final = msgspec.json.Decoder(dict[str, str])
_rewound: Final = msgspec.json.Decoder(Rewound)
"""Of the same column."""

RANGE: Final = "WHERE wallet_id > $1::uuid AND wallet_id <= $2::uuid"

_EVENT_FIELDS: Final = """
SELECT wallet_id::text, version, type, balance::text, pending_debit::text, pending_credit::text,
    coalesce(transfer_id::text, ''), coalesce(transfer_type, ''), coalesce(previous_status, ''),
    coalesce(amount, 0)::text, coalesce(reference_id, ''), coalesce(failure_reason, ''),
    coalesce(hash, ''), coalesce(previous_hash, ''), coalesce(key_digest, ''),
    CASE WHEN transfer_id IS NULL THEN metadata::text END, expires_at, coalesce(on_expiry, ''),
    occurred_at, coalesce(completed_amount, 0)::text,
    coalesce(completed_before, 0)::text, coalesce(refunds::text, ''), refunded_amount::text,
    refund_pending_amount::text
"""

_EVENT: Final = f"{_EVENT_FIELDS} FROM wallet_events"

CHAINED_EVENTS: Final = f"""{_EVENT_FIELDS},
    transfer_created_at, reference_id, metadata::text
FROM wallet_events"""

EVENTS_BY_VERSION: Final = f"{CHAINED_EVENTS} {RANGE} ORDER BY wallet_events.wallet_id, version"

EVENTS_BY_TRANSFER: Final = f"""{_EVENT} {RANGE} AND transfer_id IS NOT NULL
ORDER BY wallet_events.wallet_id, wallet_events.transfer_id, version"""

REFUNDS_BY_TRANSFER: Final = f"""{_EVENT_FIELDS}, 'of a refund'
FROM wallet_events {RANGE} AND refunds IS NOT NULL
ORDER BY wallet_events.wallet_id, wallet_events.refunds, version"""

EVENTS_AT: Final = f"""{_EVENT}
JOIN unnest($1::uuid[], $2::bigint[]) AS wanted(at_wallet, at_version)
    ON wallet_id = at_wallet AND version = at_version"""

EVENTS_OF: Final = f"{_EVENT} WHERE wallet_id = ANY ($1::uuid[])"

_TRANSFER_COLUMNS: Final = """
    type, status, amount::text, created_version, coalesce(reference_id, ''),
    coalesce(failure_reason, ''), expires_at, coalesce(on_expiry, ''), coalesce(refunds::text, ''),
    refunded_amount::text, refund_pending_amount::text
"""
_PART: Final = "coalesce({column}, 0)::text"

TRANSFERS: Final = f"""
SELECT wallet_id::text, id::text, {_TRANSFER_COLUMNS}, {_PART.format(column="settled_amount")}
FROM transfers {RANGE} ORDER BY transfers.wallet_id, transfers.id"""

PROJECTED_TRANSFERS: Final = f"""
SELECT wallet_id::text, transfer_id::text, {_TRANSFER_COLUMNS},
    {_PART.format(column="completed_amount")}, version
FROM transfer_projections {RANGE}
ORDER BY transfer_projections.wallet_id, transfer_projections.transfer_id"""

WALLET: Final = """
SELECT id::text, version, balance::text, pending_debit::text, pending_credit::text, currency,
    overdraft_limit::text, updated_at, hash_version, hash, scale, status, coalesce(frozen, ''),
    coalesce(frozen_reason, '')
FROM wallets
"""

WALLETS: Final = f"{WALLET} WHERE id > $1::uuid AND id <= $2::uuid ORDER BY wallets.id"

PROJECTED_WALLETS: Final = f"""
SELECT wallet_id::text, version, balance::text, pending_debit::text, pending_credit::text, hash,
    hash_version, status, coalesce(frozen, ''), coalesce(frozen_reason, ''), overdraft_limit::text
FROM wallet_projections {RANGE} ORDER BY wallet_projections.wallet_id"""

OUTBOX: Final = f"""
SELECT wallet_id::text, first_version, last_version
FROM outbox {RANGE} ORDER BY outbox.wallet_id, first_version"""

EXPIRIES: Final = f"""
SELECT wallet_id::text, transfer_id::text, expires_at FROM transfer_expiries {RANGE}
ORDER BY transfer_expiries.wallet_id, transfer_expiries.transfer_id"""

KEYS: Final = f"""
SELECT wallet_id::text, key, refused, answer, version
FROM idempotency_keys {RANGE} ORDER BY idempotency_keys.wallet_id, key"""


class _Change(msgspec.Struct):
    """What is in the column ``metadata`` of a wallet's change."""

    status: str = "active"
    frozen: str = ""
    frozen_reason: str = ""
    overdraft_limit: str = "0"
    metadata: Mapping[str, str] = {}
    reason: str = ""


_change: Final = msgspec.json.Decoder(_Change)

CHANGES: Final = frozenset({"wallet.updated", "wallet.frozen", "wallet.unfrozen", "wallet.closed"})


def event_from_row(row: Row) -> JournalEvent:
    event = _event_from_row(row)
    if event.type == "wallet.created":
        return msgspec.structs.replace(
            event, amount=0, control=Control(overdraft_limit=event.amount)
        )
    if event.type not in CHANGES:
        return event
    change = _change.decode(row[15])
    control = Control(
        status=change.status,
        frozen=change.frozen,
        frozen_reason=change.frozen_reason,
        overdraft_limit=int(change.overdraft_limit),
    )
    reason = change.reason
    if event.type == "wallet.updated":
        # It has none: clients of tests say in its metadata which operation it is.
        reason = change.metadata.get("operation_id", "")
    return msgspec.structs.replace(event, control=control, reason=reason)


def _event_from_row(row: Row) -> JournalEvent:
    return JournalEvent(
        wallet_id=row[0],
        version=row[1],
        type=row[2],
        after=_balances_from_row(row, 3),
        transfer_id=row[6],
        transfer_type=row[7],
        previous_status=row[8],
        amount=int(row[9]),
        reference_id=row[10],
        failure_reason=row[11],
        expires_at=row[16],
        on_expiry=row[17],
        occurred_at=row[18],
        part=int(row[19]),
        completed_before=int(row[20]),
        refunds=row[21],
        refunded=_refunded(row[22], row[23]),
    )


def _refunded(completed: str | None, pending: str | None) -> Refunded | None:
    return None if completed is None else Refunded(int(completed), int(pending or 0))


EVENT_COLUMNS: Final = 24
"""Of a statement over events in the order of transfers."""
REFUND_COLUMNS: Final = EVENT_COLUMNS + 1
"""Of a statement over refunds' events in the order of the transfers that they refund."""


def transfer_key(row: Row) -> tuple[str, str]:
    """Wallet and transfer of a row of such a statement, or of one over transfers."""
    columns = {EVENT_COLUMNS: 6, REFUND_COLUMNS: 21}
    return row[0], row[columns.get(len(row), 1)]


def chain_from_row(row: Row) -> EventChain:
    return EventChain(hash=row[12], previous_hash=row[13], key_digest=row[14])


def content_from_row(row: Row, wallet: "Wallet") -> ContentFacts:
    """Of a row of `EVENTS_BY_VERSION`."""
    occurred_at, (created_at, reference_id, metadata) = row[18], row[24:27]
    if row[2] == "wallet.rewound":
        return ContentFacts(occurred_at=occurred_at, rewound=_rewound.decode(metadata))
    if row[2] in CHANGES:
        change = _change.decode(metadata)
        return ContentFacts(
            occurred_at=occurred_at, metadata=change.metadata, reason=change.reason or None
        )
    return ContentFacts(
        occurred_at=occurred_at,
        created_at=created_at,
        reference_id=reference_id,
        metadata=_metadata.decode(metadata) if metadata else {},
        currency=wallet.row.currency,
        scale=wallet.scale,
    )


def transfer_from_row(row: Row) -> TransferRow:
    return TransferRow(
        wallet_id=row[0],
        transfer_id=row[1],
        type=row[2],
        status=row[3],
        amount=int(row[4]),
        created_version=row[5],
        reference_id=row[6],
        failure_reason=row[7],
        expires_at=row[8],
        on_expiry=row[9],
        part=int(row[13]),
        refunds=row[10],
        refunded=_refunded(row[11], row[12]),
    )


def expiry_from_row(row: Row) -> ExpiryRow:
    return ExpiryRow(wallet_id=row[0], transfer_id=row[1], expires_at=row[2])


class Wallet(msgspec.Struct, frozen=True):
    """A wallet's row, and when it last changed."""

    row: WalletRow
    updated_at: datetime
    head: Head
    """The hash in the row, and its version: behind the row's after a write of a release from before
    the chain."""
    scale: int


def wallet_from_row(row: Row) -> Wallet:
    wallet = WalletRow(
        wallet_id=row[0],
        version=row[1],
        balances=_balances_from_row(row, 2),
        currency=row[5],
        control=_control_from_row(row[11:14], row[6]),
    )
    return Wallet(wallet, row[7], Head(row[8], row[9]), row[10])


def projected_wallet_from_row(row: Row) -> WalletRow:
    return WalletRow(
        wallet_id=row[0],
        version=row[1],
        balances=_balances_from_row(row, 2),
        control=_control_from_row(row[7:10], row[10]),
    )


def _control_from_row(state: Sequence[str], limit: str) -> Control:
    status, frozen, reason = state
    return Control(status=status, frozen=frozen, frozen_reason=reason, overdraft_limit=int(limit))


def projected_head_from_row(row: Row) -> Head | None:
    """The hash in a wallet's projection; None: unknown at its version."""
    return Head(row[1], row[5]) if row[5] and row[6] == row[1] else None


def outbox_from_row(row: Row) -> OutboxRow:
    return OutboxRow(wallet_id=row[0], first_version=row[1], last_version=row[2])


def key_from_row(row: Row) -> KeyRow:
    return KeyRow(wallet_id=row[0], key=row[1], refused=row[2], answer=row[3], version=row[4])


def _balances_from_row(row: Row, first: int) -> Balances:
    return Balances(
        balance=int(row[first]),
        pending_debit=int(row[first + 1]),
        pending_credit=int(row[first + 2]),
    )


async def events_at(
    connection: asyncpg.Connection, event_keys: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], JournalEvent]:
    """The journal's events at these wallets and versions, if they exist."""
    found = await connection.fetch(
        EVENTS_AT,
        [wallet_id for wallet_id, _ in event_keys],
        [version for _, version in event_keys],
    )
    return {(row[0], row[1]): event_from_row(row) for row in found}


async def chained_events_at(
    connection: asyncpg.Connection, event_keys: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], tuple[JournalEvent, EventChain]]:
    """The journal's events at these wallets and versions, with their hashes."""
    found = await connection.fetch(
        EVENTS_AT,
        [wallet_id for wallet_id, _ in event_keys],
        [version for _, version in event_keys],
    )
    return {(row[0], row[1]): (event_from_row(row), chain_from_row(row)) for row in found}
