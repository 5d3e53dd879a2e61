"""Converts rows of the journal's tables to domain values."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from actors.journal.ports import StoredAnswer
from actors.journal.wallet_events import WalletEvent, decode_wallet_event
from wallet.events import EventType, RecordedEvent, TransferChanged, WalletCreated
from wallet.ids import TransferId, WalletId
from wallet.representation import encode_body, encode_first_body
from wallet.state import (
    Expiry,
    FailureReason,
    Freeze,
    FreezeDirection,
    OnExpiry,
    Refunded,
    Transfer,
    TransferStatus,
    TransferType,
    Wallet,
    WalletStatus,
)

Row = asyncpg.Record

EVENT_COLUMNS: Final = """
SELECT e.wallet_id::text, e.version, e.type, e.occurred_at, e.balance::text, e.pending_debit::text,
    e.pending_credit::text, e.transfer_id::text, e.transfer_type, e.previous_status,
    e.amount::text, e.transfer_created_at, e.created_version, e.failure_reason, e.reference_id,
    e.metadata, e.made_by, w.currency, w.scale, w.reference_id AS wallet_reference_id,
    w.metadata AS wallet_metadata, w.created_at AS wallet_created_at, e.hash, e.previous_hash,
    e.key_digest, e.format, e.expires_at, e.on_expiry,
    e.completed_amount::text, e.completed_before::text, e.refunds::text, e.refunded_amount::text,
    e.refund_pending_amount::text
"""

_metadata_decoder: Final = msgspec.json.Decoder(dict[str, str])


def _metadata(text: str | None) -> Mapping[str, str]:
    if text is None or text == "{}":
        return {}
    return _metadata_decoder.decode(text)


def wallet_from_row(row: Row) -> Wallet:
    status = WalletStatus(row["status"])
    return Wallet(
        id=WalletId(row["id"]),
        currency=row["currency"],
        scale=row["scale"],
        status=status,
        freeze=_freeze(row) if status is WalletStatus.FROZEN else None,
        balance=int(row["balance"]),
        pending_debit=int(row["pending_debit"]),
        pending_credit=int(row["pending_credit"]),
        overdraft_limit=int(row["overdraft_limit"]),
        version=row["version"],
        reference_id=row["reference_id"],
        metadata=_metadata(row["metadata"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        hash=row["hash"],
    )


def _freeze(row: Row) -> Freeze:
    # Without a direction: set by hand in Postgres, before there were routes for it.
    direction = FreezeDirection(row["frozen"] or FreezeDirection.BOTH)
    return Freeze(direction, row["frozen_reason"])


def transfer_from_row(row: Row) -> Transfer:
    reason = row["failure_reason"]
    return Transfer(
        id=TransferId(row["id"]),
        type=TransferType(row["type"]),
        status=TransferStatus(row["status"]),
        amount=int(row["amount"]),
        created_version=row["created_version"],
        created_at=row["created_at"],
        reference_id=row["reference_id"],
        metadata=_metadata(row["metadata"]),
        failure_reason=FailureReason(reason) if reason else None,
        settled_at=row["settled_at"],
        expiry=_expiry(row["expires_at"], row["on_expiry"]),
        part=_part(row["completed_amount"]),
        refunds=row["refunds"],
        refunded=refunded_from(row["refunded_amount"], row["refund_pending_amount"]),
    )


def _part(amount: str | None) -> int | None:
    return None if amount is None else int(amount)


def refunded_from(completed: str | None, pending: str | None) -> Refunded | None:
    """What two columns say of a transfer's refunds; None: it never had one."""
    return None if completed is None else Refunded(int(completed), int(pending or 0))


def _expiry(at: datetime | None, action: str | None) -> Expiry | None:
    return None if at is None else Expiry(at, OnExpiry(action or OnExpiry.FAIL))


def stored_answer_from_row(row: Row) -> StoredAnswer:
    return StoredAnswer(
        fingerprint=row["fingerprint"],
        request_id=row["request_id"],
        refused=row["refused"],
        answer=row["answer"].encode(),
        version=row["version"],
        recovered=row["recovered"],
    )


def recorded_event_from_row(row: Row) -> RecordedEvent:
    """The event of a journal row, with the wallet after it.

    Reads columns by position: a backlog needs tens of thousands of rows per second.
    """
    wallet_id, version, _, occurred_at, balance, pending_debit, pending_credit = row[:7]
    made_by, currency, scale, reference_id, metadata, created_at = row[16:22]
    hash_, previous_hash, key_digest, format_ = row[22:26]
    wallet = Wallet(
        id=wallet_id,
        currency=currency,
        scale=scale,
        balance=int(balance),
        pending_debit=int(pending_debit),
        pending_credit=int(pending_credit),
        version=version,
        reference_id=reference_id,
        metadata=_metadata(metadata),
        created_at=created_at,
        updated_at=occurred_at,
        hash=hash_ or b"",
    )
    event: TransferChanged | WalletEvent
    if row[7] is not None:
        event = _transfer_changed(row)
    elif row[2] == EventType.WALLET_CREATED:
        event, wallet = _wallet_created(row, wallet)
    else:
        event, wallet = decode_wallet_event(row[2], row["metadata"], wallet)
    # What was published must be published again byte for byte, whatever later releases add.
    encode = encode_body if format_ is not None else encode_first_body
    return RecordedEvent(
        event=event,
        wallet_after=wallet,
        body=encode(event, wallet),
        made_by=made_by,
        previous_hash=previous_hash or b"",
        key_digest=key_digest or b"",
    )


def _wallet_created(row: Row, wallet: Wallet) -> tuple[WalletCreated, Wallet]:
    """The event, and the wallet as it was then: it may have other metadata today."""
    limit = int(row["amount"] or 0)
    metadata = _metadata(row["metadata"])
    event = WalletCreated(
        wallet_id=wallet.id,
        currency=wallet.currency,
        scale=wallet.scale,
        reference_id=row["reference_id"],
        metadata=metadata,
        overdraft_limit=limit,
        occurred_at=row["occurred_at"],
    )
    return event, msgspec.structs.replace(wallet, metadata=metadata, overdraft_limit=limit)


_STATUS_OF: Final = {
    EventType.TRANSFER_PARTIALLY_COMPLETED.value: TransferStatus.PENDING,
    **{f"transfer.{status}": status for status in TransferStatus},
}
_STATUSES: Final[Mapping[str | None, TransferStatus | None]] = {
    None: None,
    **{str(status): status for status in TransferStatus},
}
_TYPES: Final = {str(type): type for type in TransferType}
_REASONS: Final[Mapping[str | None, FailureReason | None]] = {
    None: None,
    **{str(reason): reason for reason in FailureReason},
}


def _transfer_changed(row: Row) -> TransferChanged:
    _, version, event_type, occurred_at = row[:4]
    transfer_id, transfer_type, previous, amount, created_at, created_version = row[7:13]
    reason, reference_id, metadata = row[13:16]
    status = _STATUS_OF[event_type]
    transfer = Transfer(
        id=transfer_id,
        type=_TYPES[transfer_type],
        status=status,
        amount=int(amount),
        created_version=created_version or version,
        created_at=created_at or occurred_at,
        reference_id=reference_id,
        metadata=_metadata(metadata),
        failure_reason=_REASONS[reason],
        settled_at=None if status is TransferStatus.PENDING else occurred_at,
        expiry=_expiry(*row[26:28]),
        part=_part(row[28]),
        refunds=row[30],
        refunded=None if row[30] is not None else refunded_from(*row[31:33]),
    )
    return TransferChanged(
        transfer=transfer,
        previous=_STATUSES[previous],
        occurred_at=occurred_at,
        completed_before=int(row[29] or 0),
        refunded=None if row[30] is None else refunded_from(*row[31:33]),
    )
