"""Refunds: a transfer the other way, that names the one whose money it returns.

A refund is an ordinary transfer in every other respect: `decide_transfer` decides it, so a frozen
direction stops it, and one that takes money out needs the money. Pure.
"""

from datetime import datetime
from typing import Literal

import msgspec

from wallet.commands import CreateTransfer, RefundTransfer
from wallet.events import TransferChanged
from wallet.expiry_rules import ANY_EXPIRY, ExpiryBounds
from wallet.money import AmountError, from_minor, to_minor
from wallet.refusals import Refusal, RefusalCode
from wallet.rules import TRANSFER_NOT_FOUND, WALLET_NOT_FOUND, decide_transfer, invalid_amount
from wallet.state import Transfer, TransferType, Wallet


def decide_refund(
    wallet: Wallet | None,
    original: Transfer | None,
    command: RefundTransfer,
    *,
    now: datetime,
    bounds: ExpiryBounds = ANY_EXPIRY,
) -> TransferChanged | Refusal:
    """Return ``original``, or a part of it. INV-16: at most what it completed, less what other
    refunds have returned or hold.

    ``bounds``: how far from ``now`` a pending refund may expire.
    """
    if wallet is None:
        return WALLET_NOT_FOUND
    if original is None:
        return TRANSFER_NOT_FOUND
    if original.refunds is not None:
        return _is_refund(original)
    if original.completed_amount == 0:
        return _not_completed(original)
    amount = _amount_to_refund(wallet, original, command)
    if isinstance(amount, Refusal):
        return amount

    decision = decide_transfer(
        wallet,
        CreateTransfer(
            transfer_id=command.transfer_id,
            type=direction_of_refund(original.type),
            status=command.status,
            amount=from_minor(amount, wallet.scale),
            reference_id=command.reference_id,
            metadata=command.metadata,
            expiry=command.expiry,
        ),
        now=now,
        bounds=bounds,
    )
    if isinstance(decision, Refusal):
        return decision
    refund = msgspec.structs.replace(decision.transfer, refunds=original.id)
    return msgspec.structs.replace(decision, transfer=refund)


def direction_of_refund(type: TransferType) -> Literal["debit", "credit"]:
    """The direction of a refund of a transfer of this type."""
    return "credit" if type is TransferType.DEBIT else "debit"


def _amount_to_refund(wallet: Wallet, original: Transfer, command: RefundTransfer) -> int | Refusal:
    """In minor units, at least 1."""
    left = original.refundable_amount
    if command.amount is None:
        return left if left > 0 else _exceeds(wallet, original, None)
    try:
        amount = to_minor(command.amount, wallet.scale)
    except AmountError as error:
        return invalid_amount(wallet.currency, error, "/amount")
    return amount if amount <= left else _exceeds(wallet, original, amount)


def _is_refund(original: Transfer) -> Refusal:
    return Refusal(
        code=RefusalCode.TRANSFER_IS_REFUND,
        detail=f"The transfer is itself a refund, of {original.refunds}. To take it back, make a "
        f"new {direction_of_refund(original.type)}.",
    )


def _not_completed(original: Transfer) -> Refusal:
    return Refusal(
        code=RefusalCode.TRANSFER_NOT_COMPLETED,
        detail=f"The transfer is {original.status} and has completed nothing that could be "
        "refunded. Revert a pending transfer instead.",
    )


def _exceeds(wallet: Wallet, original: Transfer, amount: int | None) -> Refusal:
    def shown(minor: int) -> str:
        return from_minor(minor, wallet.scale)

    refunded = original.refunded
    before = (
        "nothing was refunded yet"
        if refunded is None
        else f"{shown(refunded.completed)} was refunded, {shown(refunded.pending)} is held by "
        "pending refunds"
    )
    asked = "nothing is left" if amount is None else f"{shown(amount)} was asked for"
    return Refusal(
        code=RefusalCode.AMOUNT_EXCEEDS_REFUNDABLE,
        detail=f"The transfer completed {shown(original.completed_amount)} {wallet.currency}; "
        f"{before}: {asked}, {shown(original.refundable_amount)} can be refunded.",
        pointer="/amount",
    )
