"""How wallets and transfers look in JSON: in answers, in events and in stored results alike.

One encoding, made once per event: what the client is told is what the stream says.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from wallet.events import Recorded, TransferChanged
from wallet.ids import TransferId, WalletId
from wallet.money import from_minor
from wallet.state import Transfer, Wallet


class WalletView(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet, amounts as decimal strings."""

    id: WalletId
    reference_id: str | None
    currency: str
    scale: int
    status: str
    balance: str
    pending_credit: str
    pending_debit: str
    version: int
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime


class BalancesView(msgspec.Struct, frozen=True, kw_only=True):
    """The wallet after a write."""

    version: int
    balance: str
    pending_credit: str
    pending_debit: str


class TransferView(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer as reads tell it."""

    id: TransferId
    wallet_id: WalletId
    type: str
    status: str
    amount: str
    currency: str
    reference_id: str | None
    metadata: Mapping[str, str]
    failure_reason: str | None
    created_at: datetime
    settled_at: datetime | None


class WrittenTransferView(TransferView, frozen=True, kw_only=True):
    """A transfer as writes tell it: with the wallet's balances and version after it."""

    wallet: BalancesView


ENCODER: Final = msgspec.json.Encoder()


def wallet_view(wallet: Wallet) -> WalletView:
    scale = wallet.scale
    return WalletView(
        id=wallet.id,
        reference_id=wallet.reference_id,
        currency=wallet.currency,
        scale=scale,
        status=wallet.status,
        balance=from_minor(wallet.balance, scale),
        pending_credit=from_minor(wallet.pending_credit, scale),
        pending_debit=from_minor(wallet.pending_debit, scale),
        version=wallet.version,
        metadata=wallet.metadata,
        created_at=wallet.created_at,
        updated_at=wallet.updated_at,
    )


def balances_view(wallet: Wallet) -> BalancesView:
    scale = wallet.scale
    return BalancesView(
        version=wallet.version,
        balance=from_minor(wallet.balance, scale),
        pending_credit=from_minor(wallet.pending_credit, scale),
        pending_debit=from_minor(wallet.pending_debit, scale),
    )


def written_transfer_view(transfer: Transfer, wallet: Wallet) -> WrittenTransferView:
    return WrittenTransferView(
        id=transfer.id,
        wallet_id=wallet.id,
        type=transfer.type,
        status=transfer.status,
        amount=from_minor(transfer.amount, wallet.scale),
        currency=wallet.currency,
        reference_id=transfer.reference_id,
        metadata=transfer.metadata,
        failure_reason=transfer.failure_reason,
        created_at=transfer.created_at,
        settled_at=transfer.settled_at,
        wallet=balances_view(wallet),
    )


def encode_transfer(transfer: Transfer, wallet: Wallet) -> bytes:
    """The JSON of a transfer as it was written, with the wallet after it."""
    return ENCODER.encode(written_transfer_view(transfer, wallet))


def encode_recorded(recorded: Recorded) -> bytes:
    """The JSON of what an event made: its transfer, or the wallet it created."""
    event = recorded.event
    if isinstance(event, TransferChanged):
        return encode_transfer(event.transfer, recorded.wallet)
    return ENCODER.encode(wallet_view(recorded.wallet))
