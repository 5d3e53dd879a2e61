"""The domain rules: decide whether a command becomes an event or a refusal.

Each function is a list of guards, one per line, in order of precedence. After the last guard the
event can't be refused any more. All functions are pure.
"""

from datetime import datetime
from typing import Final

import msgspec

from wallet.api_limits import METADATA_ENTRIES_MAX
from wallet.commands import CreateTransfer, CreateWallet, SettleTransfer
from wallet.events import TransferChanged, WalletCreated
from wallet.expiry_rules import ANY_EXPIRY, ExpiryBounds, resolve_expiry, rfc3339
from wallet.money import MINOR_MAX, AmountError, from_minor, to_minor
from wallet.refusals import Refusal, RefusalCode
from wallet.state import (
    FailureReason,
    FreezeDirection,
    OnExpiry,
    Transfer,
    TransferStatus,
    TransferType,
    Wallet,
    WalletStatus,
)


def decide_creation(
    command: CreateWallet, *, reference_taken: bool, now: datetime
) -> WalletCreated | Refusal:
    """Open a wallet. ``reference_taken``: another wallet has this ``reference_id``."""
    if reference_taken:
        return _reference_id_taken(command)
    try:
        limit = to_minor(command.overdraft_limit, command.scale)
    except AmountError as error:
        return invalid_amount(command.currency, error, "/overdraft_limit")

    return WalletCreated(
        wallet_id=command.wallet_id,
        currency=command.currency,
        scale=command.scale,
        reference_id=command.reference_id,
        metadata=command.metadata,
        overdraft_limit=limit,
        occurred_at=now,
    )


def decide_transfer(
    wallet: Wallet | None,
    command: CreateTransfer,
    *,
    now: datetime,
    bounds: ExpiryBounds = ANY_EXPIRY,
) -> TransferChanged | Refusal:
    """Put money in or take money out. INV-1: a credit never exceeds the available balance.

    ``bounds``: how far from ``now`` a pending transfer may expire.
    """
    if wallet is None:
        return WALLET_NOT_FOUND
    if wallet.status is not WalletStatus.ACTIVE and _is_stopped(wallet, command.type):
        return _wallet_not_active(wallet)
    try:
        amount = to_minor(command.amount, wallet.scale)
    except AmountError as error:
        return invalid_amount(wallet.currency, error, "/amount")
    expiry = None
    if command.expiry is not None:
        expiry = resolve_expiry(command.expiry, now=now, bounds=bounds)
    if isinstance(expiry, Refusal):
        return expiry
    is_credit = command.type == "credit"
    if is_credit and wallet.balance + wallet.overdraft_limit < amount:
        return _insufficient_funds(wallet, amount)
    if not is_credit and _balance_with_pending(wallet) + amount > MINOR_MAX:
        return _balance_out_of_range(wallet)

    status = TransferStatus(command.status)
    return TransferChanged(
        transfer=Transfer(
            id=command.transfer_id,
            type=TransferType(command.type),
            status=status,
            amount=amount,
            created_version=wallet.version + 1,
            created_at=now,
            reference_id=command.reference_id,
            metadata=command.metadata,
            settled_at=None if status is TransferStatus.PENDING else now,
            expiry=expiry,
        ),
        previous=None,
        occurred_at=now,
    )


def decide_settlement(
    wallet: Wallet | None, transfer: Transfer | None, command: SettleTransfer, *, now: datetime
) -> TransferChanged | Transfer | Refusal:
    """Complete, all or a part, or revert. A repetition returns the transfer itself: it has no
    second effect.

    INV-4: only a pending transfer changes. INV-15: one that has expired is settled before, by
    `decide_expiry`.
    """
    if wallet is None:
        return WALLET_NOT_FOUND
    if transfer is None:
        return TRANSFER_NOT_FOUND
    amount = _amount_to_complete(wallet, transfer, command)
    if isinstance(amount, Refusal):
        return amount
    target = TransferStatus(command.status)
    # What leaves the rest held has a key, which recognises a repetition: this is another part.
    if transfer.status is target and command.final and _is_repetition(transfer, amount):
        return transfer
    if transfer.status is not TransferStatus.PENDING:
        return _already_settled(transfer)
    if amount is not None and amount > transfer.pending_amount:
        return _amount_exceeds_hold(wallet, transfer, amount)
    if (
        target is TransferStatus.COMPLETED
        and wallet.status is not WalletStatus.ACTIVE
        and _is_stopped(wallet, transfer.type)
    ):
        return _wallet_not_active(wallet)
    metadata = {**transfer.metadata, **command.metadata}
    if len(metadata) > max(METADATA_ENTRIES_MAX, len(transfer.metadata)):
        return _too_much_metadata(transfer, command)

    changed = msgspec.structs.replace(
        transfer, reference_id=command.reference_id or transfer.reference_id, metadata=metadata
    )
    if target is TransferStatus.FAILED:
        return _settled(changed, target, now, reason=FailureReason.REVERTED)
    return _completed(changed, amount, now, final=command.final)


def _completed(
    transfer: Transfer, amount: int | None, now: datetime, *, final: bool
) -> TransferChanged:
    """``amount`` of a pending transfer is completed; None: all that is left. ``final``: the rest is
    released."""
    before = transfer.completed_amount
    completed = before + (transfer.pending_amount if amount is None else amount)
    if final or completed == transfer.amount:
        return _settled(transfer, TransferStatus.COMPLETED, now, completed=completed)
    return TransferChanged(
        transfer=msgspec.structs.replace(transfer, part=completed),
        previous=transfer.status,
        occurred_at=now,
        completed_before=before,
    )


def _amount_to_complete(
    wallet: Wallet, transfer: Transfer, command: SettleTransfer
) -> int | Refusal | None:
    """In minor units; None: all that is left."""
    if command.amount is None:
        return None
    try:
        amount = to_minor(command.amount, wallet.scale)
    except AmountError as error:
        return invalid_amount(wallet.currency, error, "/amount")
    return _amount_exceeds_hold(wallet, transfer, amount) if amount > transfer.amount else amount


def _is_repetition(transfer: Transfer, amount: int | None) -> bool:
    """Whether a settled transfer is as the command asks for: another amount is no repetition.

    After several parts only a key tells that.
    """
    if transfer.status is not TransferStatus.COMPLETED:
        return transfer.status is TransferStatus.FAILED
    return transfer.completed_amount == (transfer.amount if amount is None else amount)


def _settled(
    transfer: Transfer,
    status: TransferStatus,
    now: datetime,
    *,
    completed: int | None = None,
    reason: FailureReason | None = None,
) -> TransferChanged:
    """The end of a pending transfer. ``completed``: of all of it; None: nothing more."""
    before = transfer.completed_amount
    total = before if completed is None else completed
    return TransferChanged(
        transfer=msgspec.structs.replace(
            transfer,
            status=status,
            failure_reason=reason,
            settled_at=now,
            part=total if 0 < total < transfer.amount else None,
        ),
        previous=transfer.status,
        occurred_at=now,
        completed_before=before,
    )


def decide_expiry(wallet: Wallet, transfer: Transfer, *, now: datetime) -> TransferChanged:
    """Settle a transfer that has expired. Nothing refuses this: frozen wallets do it, too.

    One that should complete and can't, because its direction is frozen, fails.
    """
    assert transfer.is_due(now), "INV-15 a transfer expires at its time, while it is pending"
    assert transfer.expiry is not None, "INV-15 it has a time"
    completes = transfer.expiry.action is OnExpiry.COMPLETE and (
        wallet.status is WalletStatus.ACTIVE or not _is_stopped(wallet, transfer.type)
    )
    if completes:
        return _settled(transfer, TransferStatus.COMPLETED, now, completed=transfer.amount)
    return _settled(transfer, TransferStatus.FAILED, now, reason=FailureReason.EXPIRED)


def _is_stopped(wallet: Wallet, type: str) -> bool:
    return wallet.freeze is None or wallet.freeze.stops(TransferType(type))


def _balance_with_pending(wallet: Wallet) -> int:
    return wallet.balance + wallet.pending_debit + wallet.pending_credit


WALLET_NOT_FOUND = Refusal(
    code=RefusalCode.WALLET_NOT_FOUND, detail="There is no wallet with this id."
)

TRANSFER_NOT_FOUND = Refusal(
    code=RefusalCode.TRANSFER_NOT_FOUND,
    detail="This wallet has no transfer with this id.",
)


def _reference_id_taken(command: CreateWallet) -> Refusal:
    return Refusal(
        code=RefusalCode.REFERENCE_ID_TAKEN,
        detail=f"Another wallet has the reference_id {command.reference_id!r}. "
        "Find it with GET /v1/wallet?reference_id=…",
    )


def _wallet_not_active(wallet: Wallet) -> Refusal:
    freeze = wallet.freeze
    if freeze is None:
        return WALLET_CLOSED
    reason = f" (reason: {freeze.reason})" if freeze.reason else ""
    return Refusal(
        code=RefusalCode.WALLET_FROZEN,
        detail=f"The wallet is frozen{reason}: it {_STOPPED[freeze.direction]}. Pending transfers "
        "can be reverted.",
    )


_STOPPED: Final = {
    FreezeDirection.BOTH: "takes no transfers and completes none",
    FreezeDirection.DEBIT: "takes no debits (money INTO the wallet) and completes none",
    FreezeDirection.CREDIT: "takes no credits (money OUT of the wallet) and completes none",
}

WALLET_CLOSED: Final = Refusal(
    code=RefusalCode.WALLET_CLOSED, detail="The wallet is closed for ever: nothing changes it."
)


def invalid_amount(currency: str, error: AmountError, pointer: str) -> Refusal:
    """An amount, or a limit, that the currency doesn't have."""
    return Refusal(
        code=RefusalCode.VALIDATION_ERROR,
        detail=f"The amount does not fit {currency}: {error}.",
        pointer=pointer,
    )


def _insufficient_funds(wallet: Wallet, amount: int) -> Refusal:
    available = from_minor(wallet.balance + wallet.overdraft_limit, wallet.scale)
    requested = from_minor(amount, wallet.scale)
    return Refusal(
        code=RefusalCode.INSUFFICIENT_FUNDS,
        detail=f"A credit takes money out of the wallet: {requested} {wallet.currency} was asked "
        f"for, {available} is available.",
    )


def _balance_out_of_range(wallet: Wallet) -> Refusal:
    return Refusal(
        code=RefusalCode.BALANCE_OUT_OF_RANGE,
        detail="A debit puts money into the wallet: with it, the wallet would hold more than "
        f"{from_minor(MINOR_MAX, wallet.scale)} {wallet.currency}.",
    )


def _too_much_metadata(transfer: Transfer, command: SettleTransfer) -> Refusal:
    new = len(command.metadata.keys() - transfer.metadata.keys())
    return Refusal(
        code=RefusalCode.VALIDATION_ERROR,
        detail=f"The transfer's metadata has {len(transfer.metadata)} entries, and {new} more were "
        f"sent: it holds at most {METADATA_ENTRIES_MAX}.",
        pointer="/metadata",
    )


def _amount_exceeds_hold(wallet: Wallet, transfer: Transfer, amount: int) -> Refusal:
    return Refusal(
        code=RefusalCode.AMOUNT_EXCEEDS_HOLD,
        detail=f"The transfer is of {from_minor(transfer.amount, wallet.scale)} {wallet.currency}, "
        f"and holds {from_minor(transfer.pending_amount, wallet.scale)}: "
        f"{from_minor(amount, wallet.scale)} can't be completed of it.",
        pointer="/amount",
    )


def _already_settled(transfer: Transfer) -> Refusal:
    completed = transfer.status is TransferStatus.COMPLETED
    return Refusal(
        code=RefusalCode.TRANSFER_ALREADY_COMPLETED
        if completed
        else RefusalCode.TRANSFER_ALREADY_FAILED,
        detail=f"The transfer is {transfer.status} since {rfc3339(transfer.settled_at)}"
        f"{_expired(transfer)}; only a pending transfer can be settled.",
    )


def _expired(transfer: Transfer) -> str:
    """How a transfer that expired came to its status; empty: it didn't, as far as is known."""
    if transfer.expiry is None or transfer.settled_at is None:
        return ""
    if transfer.settled_at < transfer.expiry.at or transfer.failure_reason is _REVERTED:
        return ""
    return f" (it expired at {rfc3339(transfer.expiry.at)})"


_REVERTED: Final = FailureReason.REVERTED
