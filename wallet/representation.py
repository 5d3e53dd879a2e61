"""JSON of wallets and transfers: in responses, events and stored results alike.

Encoded once per event: the client's response and the event on the stream have the same JSON. The
encoded structs also contain the field descriptions of the OpenAPI document.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from wallet.events import Event, TransferChanged, WalletChanged, WalletCreated, WalletRewound
from wallet.ids import TransferId, WalletId
from wallet.money import from_minor
from wallet.state import (
    FailureReason,
    FreezeDirection,
    OnExpiry,
    Refunded,
    Transfer,
    TransferStatus,
    TransferType,
    Wallet,
    WalletStatus,
)


def _value_of(choices: type[StrEnum]) -> Meta:
    """For the schema only, without validation: an event of a later release must still decode."""
    return Meta(extra_json_schema={"enum": [str(choice) for choice in choices]})


_Balance = Annotated[str, Meta(description="What may be spent.", examples=["10.50"])]
_PendingCredit = Annotated[str, Meta(description="Held for pending credits, no longer in balance.")]
_PendingDebit = Annotated[str, Meta(description="Announced by pending debits, not yet in balance.")]
_Timestamp = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]


class WalletView(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet. Amounts are decimal strings with `scale` decimals."""

    id: WalletId
    reference_id: str | None
    currency: str
    scale: int
    status: Annotated[str, _value_of(WalletStatus)]
    balance: _Balance
    pending_credit: _PendingCredit
    pending_debit: _PendingDebit
    version: Annotated[int, Meta(description="Number of events of this wallet so far.")]
    metadata: Mapping[str, str]
    created_at: _Timestamp
    updated_at: _Timestamp
    overdraft_limit: (
        Annotated[str, Meta(description="How far below zero the balance may go.")] | UnsetType
    ) = UNSET
    """Unset, as are the two below, in events of releases without them."""
    frozen: Annotated[str, _value_of(FreezeDirection)] | UnsetType | None = UNSET
    frozen_reason: str | UnsetType | None = UNSET


class WalletChangedView(WalletView, frozen=True, kw_only=True):
    """A wallet after a change of what it may do."""

    reason: Annotated[str | None, Meta(description="Why, as the request said.")]


class WalletRewoundView(WalletView, frozen=True, kw_only=True):
    """A wallet after the journal had lost its latest events."""

    common_version: Annotated[
        int, Meta(description="The last version that still stands; 0: not even the creation.")
    ]
    common_hash: Annotated[str, Meta(description="Hash of the event at that version.")]
    lost: Annotated[tuple[str, ...], Meta(description="Ids of the events that are gone.")]


class BalancesView(msgspec.Struct, frozen=True, kw_only=True):
    """The wallet after the write."""

    version: Annotated[int, Meta(description="Use as min_version to read your own write.")]
    balance: _Balance
    pending_credit: _PendingCredit
    pending_debit: _PendingDebit


class TransferView(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer: `debit` put money INTO the wallet, `credit` took money OUT of it."""

    id: TransferId
    wallet_id: WalletId
    type: Annotated[str, _value_of(TransferType)]
    status: Annotated[str, _value_of(TransferStatus)]
    amount: Annotated[str, Meta(examples=["10.50"])]
    currency: str
    reference_id: str | None
    metadata: Mapping[str, str]
    failure_reason: Annotated[str, _value_of(FailureReason)] | None
    created_at: _Timestamp
    settled_at: _Timestamp | None
    effect: (
        Annotated[
            str,
            Meta(
                description="Where the money goes: `in`to the wallet (a debit) or `out` of it (a "
                "credit).",
                extra_json_schema={"enum": ["in", "out"]},
            ),
        ]
        | UnsetType
    ) = UNSET
    """Unset in events of releases without it."""
    expires_at: (
        Annotated[
            datetime,
            Meta(
                description="When it settles itself, if it is still pending then. Absent: never.",
                extra_json_schema={"format": "date-time"},
            ),
        ]
        | UnsetType
    ) = UNSET
    on_expiry: Annotated[str, _value_of(OnExpiry)] | UnsetType = UNSET
    """Set if, and only if, ``expires_at`` is."""
    completed_amount: (
        Annotated[
            str,
            Meta(
                description="What was completed, if a part. Absent: all of a completed transfer, "
                "nothing of another one.",
            ),
        ]
        | UnsetType
    ) = UNSET
    pending_amount: (
        Annotated[
            str,
            Meta(description="What is still held of a transfer of which a part was completed."),
        ]
        | UnsetType
    ) = UNSET
    refunds: (
        Annotated[TransferId, Meta(description="Of a refund: id of the transfer that it refunds.")]
        | UnsetType
    ) = UNSET
    refunded_amount: (
        Annotated[
            str,
            Meta(description="What refunds have returned of it. Absent: it never had a refund."),
        ]
        | UnsetType
    ) = UNSET
    refund_pending_amount: (
        Annotated[str, Meta(description="What pending refunds hold of it. Absent: nothing.")]
        | UnsetType
    ) = UNSET


class RefundedView(msgspec.Struct, frozen=True, kw_only=True):
    """What has been refunded of a transfer."""

    refunded_amount: Annotated[str, Meta(description="By completed refunds.")]
    refund_pending_amount: Annotated[str, Meta(description="Held by pending refunds.")]


class TransferResultView(TransferView, frozen=True, kw_only=True):
    """A transfer as a write answers it: with the wallet after it."""

    wallet: BalancesView
    refunded_transfer: (
        Annotated[
            RefundedView,
            Meta(description="Of a refund: the transfer that it refunds, after this write."),
        ]
        | UnsetType
    ) = UNSET


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
        overdraft_limit=from_minor(wallet.overdraft_limit, scale),
        frozen=wallet.frozen,
        frozen_reason=wallet.frozen_reason,
    )


def balances_view(wallet: Wallet) -> BalancesView:
    scale = wallet.scale
    return BalancesView(
        version=wallet.version,
        balance=from_minor(wallet.balance, scale),
        pending_credit=from_minor(wallet.pending_credit, scale),
        pending_debit=from_minor(wallet.pending_debit, scale),
    )


def effect_of(type: TransferType) -> str:
    """Where the money of a transfer goes, in words that nobody reads the wrong way round."""
    return "in" if type is TransferType.DEBIT else "out"


def transfer_result_view(
    transfer: Transfer, wallet: Wallet, original: Refunded | None = None
) -> TransferResultView:
    """``original``: of a refund, what is refunded of the transfer that it refunds."""
    view = TransferResultView(
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
        effect=effect_of(transfer.type),
        wallet=balances_view(wallet),
    )
    # Most transfers neither expire nor have parts or refunds, and pay nothing for those that do.
    if transfer.expiry is not None or transfer.part is not None:
        view = _with_hold(view, transfer, wallet.scale)
    if transfer.refunds is not None or transfer.refunded is not None:
        view = _with_refunds(view, transfer, original, wallet.scale)
    return view


def _with_hold(view: TransferResultView, transfer: Transfer, scale: int) -> TransferResultView:
    """``view`` with the fields of a transfer that expires, or of which a part was completed."""
    expiry, part, left = transfer.expiry, transfer.part, transfer.pending_amount
    return msgspec.structs.replace(
        view,
        expires_at=UNSET if expiry is None else expiry.at,
        on_expiry=UNSET if expiry is None else expiry.action,
        completed_amount=UNSET if part is None else from_minor(part, scale),
        pending_amount=UNSET if part is None or not left else from_minor(left, scale),
    )


def _with_refunds(
    view: TransferResultView, transfer: Transfer, original: Refunded | None, scale: int
) -> TransferResultView:
    """``view`` with the fields of a refund, or of a transfer that has refunds."""
    refunded = transfer.refunded
    return msgspec.structs.replace(
        view,
        refunds=UNSET if transfer.refunds is None else transfer.refunds,
        refunded_transfer=UNSET if original is None else _refunded_view(original, scale),
        **refunded_fields(refunded, scale),
    )


def refunded_fields(refunded: Refunded | None, scale: int) -> dict[str, str]:
    """The fields of a transfer that has refunds; none of another one."""
    if refunded is None:
        return {}
    fields = {"refunded_amount": from_minor(refunded.completed, scale)}
    if refunded.pending:
        fields["refund_pending_amount"] = from_minor(refunded.pending, scale)
    return fields


def _refunded_view(refunded: Refunded, scale: int) -> RefundedView:
    return RefundedView(
        refunded_amount=from_minor(refunded.completed, scale),
        refund_pending_amount=from_minor(refunded.pending, scale),
    )


def changed_view(wallet: Wallet, reason: str | None) -> WalletChangedView:
    return WalletChangedView(**msgspec.structs.asdict(wallet_view(wallet)), reason=reason)


def rewound_view(event: WalletRewound, wallet: Wallet) -> WalletRewoundView:
    return WalletRewoundView(
        **msgspec.structs.asdict(wallet_view(wallet)),
        common_version=event.common_version,
        common_hash=event.common_hash.hex(),
        lost=event.lost,
    )


def encode_transfer(transfer: Transfer, wallet: Wallet, original: Refunded | None = None) -> bytes:
    """The JSON of a transfer as it was written, with the wallet after it.

    ``original``: of a refund, what is refunded of the transfer that it refunds.
    """
    return ENCODER.encode(transfer_result_view(transfer, wallet, original))


def encode_body(event: Event, wallet_after: Wallet) -> bytes:
    """The JSON of an event's transfer, or of the wallet that it created or rewound."""
    if isinstance(event, TransferChanged):
        return encode_transfer(event.transfer, wallet_after, event.refunded)
    return ENCODER.encode(_wallet_event_view(event, wallet_after))


def encode_first_body(event: Event, wallet_after: Wallet) -> bytes:
    """`encode_body` as the releases did whose events have no format in the journal."""
    if isinstance(event, TransferChanged):
        view = transfer_result_view(event.transfer, wallet_after)
        return ENCODER.encode(msgspec.structs.replace(view, effect=UNSET))
    return ENCODER.encode(
        msgspec.structs.replace(
            _wallet_event_view(event, wallet_after),
            overdraft_limit=UNSET,
            frozen=UNSET,
            frozen_reason=UNSET,
        )
    )


def _wallet_event_view(
    event: WalletCreated | WalletChanged | WalletRewound, after: Wallet
) -> WalletView:
    if isinstance(event, WalletRewound):
        return rewound_view(event, after)
    if isinstance(event, WalletChanged):
        return changed_view(after, event.reason)
    return wallet_view(after)
