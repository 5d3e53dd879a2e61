"""Wallets, transfers and events for tests of the rules and of the projections."""

from datetime import UTC, datetime
from typing import Any

from wallet.events import Event, RecordedEvent, TransferChanged, WalletCreated
from wallet.ids import TransferId, WalletId
from wallet.representation import encode_body
from wallet.state import FailureReason, Transfer, TransferStatus, TransferType, Wallet

NOW = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)

HASH = bytes(range(16))

WALLET_ID = WalletId("01900000-0000-7000-8000-000000000001")
OTHER_WALLET_ID = WalletId("01900000-0000-7000-8000-000000000002")
TRANSFER_ID = TransferId("01900000-0000-7000-8000-00000000000a")


def wallet_id(number: int) -> WalletId:
    return WalletId(f"01900000-0000-7000-8000-{number:012x}")


def transfer_id(number: int) -> TransferId:
    return TransferId(f"01900000-0000-7000-9000-{number:012x}")


def make_wallet(**fields: Any) -> Wallet:
    """A USD wallet at version 5; its balance is zero by default."""
    values: dict[str, Any] = {
        "id": WALLET_ID,
        "currency": "USD",
        "scale": 2,
        "version": 5,
        "created_at": NOW,
        "updated_at": NOW,
        "hash": HASH,
    }
    return Wallet(**values | fields)


def make_transfer(**fields: Any) -> Transfer:
    """A transfer; by default a pending debit of 1.00."""
    values: dict[str, Any] = {
        "id": TRANSFER_ID,
        "type": TransferType.DEBIT,
        "status": TransferStatus.PENDING,
        "amount": 100,
        "created_version": 2,
        "created_at": NOW,
    }
    return Transfer(**values | fields)


def settled(transfer: Transfer, status: TransferStatus, **fields: Any) -> Transfer:
    failed = status is TransferStatus.FAILED
    values = {name: getattr(transfer, name) for name in transfer.__struct_fields__}
    return Transfer(
        **values
        | {
            "status": status,
            "settled_at": LATER,
            "failure_reason": FailureReason.REVERTED if failed else None,
        }
        | fields
    )


def created(wallet: Wallet) -> RecordedEvent:
    """The first event of ``wallet``."""
    return recorded_event(
        WalletCreated(
            wallet_id=wallet.id,
            currency=wallet.currency,
            scale=wallet.scale,
            reference_id=wallet.reference_id,
            metadata=wallet.metadata,
            occurred_at=wallet.created_at,
        ),
        wallet,
    )


def changed(
    transfer: Transfer,
    wallet: Wallet,
    *,
    previous: TransferStatus | None = None,
    at: datetime = NOW,
) -> RecordedEvent:
    """The event after which the states are ``transfer`` and ``wallet``."""
    return recorded_event(
        TransferChanged(transfer=transfer, previous=previous, occurred_at=at), wallet
    )


def recorded_event(
    event: Event, wallet_after: Wallet, *, previous_hash: bytes = b""
) -> RecordedEvent:
    """An event without a hash of its own."""
    return RecordedEvent(
        event=event,
        wallet_after=wallet_after,
        body=encode_body(event, wallet_after),
        previous_hash=previous_hash,
    )
