"""The rules of a wallet's control: its metadata, its overdraft limit, freezing and closing.

As `wallet.rules`: guards in order of precedence, then an event. What changes nothing returns the
wallet itself.
"""

from datetime import datetime
from typing import assert_never

import msgspec

from wallet.api_limits import METADATA_ENTRIES_MAX
from wallet.commands import CloseWallet, ControlWallet, FreezeWallet, UnfreezeWallet, UpdateWallet
from wallet.events import EventType, WalletChanged
from wallet.money import AmountError, from_minor, to_minor
from wallet.refusals import Refusal, RefusalCode
from wallet.rules import WALLET_CLOSED, WALLET_NOT_FOUND, invalid_amount
from wallet.state import Freeze, FreezeDirection, Wallet, WalletStatus


def decide_control(
    wallet: Wallet | None, command: ControlWallet, *, now: datetime
) -> WalletChanged | Wallet | Refusal:
    """Change what a wallet may do. A repetition returns the wallet: it has no second effect."""
    if wallet is None:
        return WALLET_NOT_FOUND
    if command.if_match is not None and wallet.version not in command.if_match:
        return _moved(wallet, command.if_match)
    if wallet.status is WalletStatus.CLOSED:
        return wallet if isinstance(command, CloseWallet) else WALLET_CLOSED
    if isinstance(command, UpdateWallet):
        return _decide_update(wallet, command, now)
    if isinstance(command, FreezeWallet):
        return _decide_freeze(wallet, command, now)
    if isinstance(command, UnfreezeWallet):
        if wallet.freeze is None:
            return wallet
        unfrozen = _unchanged(wallet, EventType.WALLET_UNFROZEN, now)
        return msgspec.structs.replace(
            unfrozen, status=WalletStatus.ACTIVE, freeze=None, reason=command.reason
        )
    if isinstance(command, CloseWallet):
        return _decide_closing(wallet, command, now)
    assert_never(command)


def _decide_update(
    wallet: Wallet, command: UpdateWallet, now: datetime
) -> WalletChanged | Wallet | Refusal:
    """INV-1: the limit is never below what is used of it."""
    metadata = _merged(wallet, command)
    if len(metadata) > max(METADATA_ENTRIES_MAX, len(wallet.metadata)):
        return _metadata_full(metadata)
    limit = wallet.overdraft_limit
    if command.overdraft_limit is not None:
        try:
            limit = to_minor(command.overdraft_limit, wallet.scale)
        except AmountError as error:
            return invalid_amount(wallet.currency, error, "/overdraft_limit")
    if wallet.balance < -limit:
        return _overdraft_in_use(wallet)
    if (metadata, limit) == (wallet.metadata, wallet.overdraft_limit):
        return wallet

    updated = _unchanged(wallet, EventType.WALLET_UPDATED, now)
    return msgspec.structs.replace(updated, metadata=metadata, overdraft_limit=limit)


def _decide_freeze(wallet: Wallet, command: FreezeWallet, now: datetime) -> WalletChanged | Wallet:
    freeze = Freeze(FreezeDirection(command.direction), command.reason)
    if wallet.freeze == freeze:
        return wallet

    frozen = _unchanged(wallet, EventType.WALLET_FROZEN, now)
    return msgspec.structs.replace(
        frozen, status=WalletStatus.FROZEN, freeze=freeze, reason=command.reason
    )


def _decide_closing(
    wallet: Wallet, command: CloseWallet, now: datetime
) -> WalletChanged | Wallet | Refusal:
    """INV-14: only an empty wallet is closed."""
    if wallet.balance or wallet.pending_debit or wallet.pending_credit:
        return _not_empty(wallet)

    closed = _unchanged(wallet, EventType.WALLET_CLOSED, now)
    return msgspec.structs.replace(
        closed, status=WalletStatus.CLOSED, freeze=None, reason=command.reason
    )


def _merged(wallet: Wallet, command: UpdateWallet) -> dict[str, str]:
    kept = {} if command.replace_metadata else wallet.metadata
    merged = {**kept, **command.metadata}
    return {name: value for name, value in merged.items() if value is not None}


def _unchanged(wallet: Wallet, type: EventType, now: datetime) -> WalletChanged:
    return WalletChanged(
        type=type,
        wallet_id=wallet.id,
        status=wallet.status,
        freeze=wallet.freeze,
        overdraft_limit=wallet.overdraft_limit,
        metadata=wallet.metadata,
        occurred_at=now,
    )


def _moved(wallet: Wallet, asked: tuple[int, ...]) -> Refusal:
    versions = " or ".join(map(str, asked)) or "another version"
    return Refusal(
        code=RefusalCode.PRECONDITION_FAILED,
        detail=f"The wallet is at version {wallet.version}; If-Match asks for {versions}. "
        "Read the wallet, and decide again.",
    )


def _metadata_full(metadata: dict[str, str]) -> Refusal:
    return Refusal(
        code=RefusalCode.METADATA_FULL,
        detail=f"The wallet's metadata would have {len(metadata)} entries, and holds at most "
        f"{METADATA_ENTRIES_MAX}. Remove an entry by sending null for it.",
    )


def _overdraft_in_use(wallet: Wallet) -> Refusal:
    used = from_minor(-wallet.balance, wallet.scale)
    return Refusal(
        code=RefusalCode.OVERDRAFT_IN_USE,
        detail=f"The wallet uses {used} {wallet.currency} of its overdraft: the limit can't be "
        "lower.",
    )


def _not_empty(wallet: Wallet) -> Refusal:
    amounts = (
        f"{name} {from_minor(minor, wallet.scale)}"
        for name, minor in (
            ("balance", wallet.balance),
            ("pending_debit", wallet.pending_debit),
            ("pending_credit", wallet.pending_credit),
        )
        if minor
    )
    return Refusal(
        code=RefusalCode.WALLET_NOT_EMPTY,
        detail=f"Only an empty wallet can be closed. This one has {', '.join(amounts)} "
        f"{wallet.currency}.",
    )
