"""How events change a wallet, as defined by the table below.

``evolve`` never refuses: the rules refuse a command before there is an event. The table in
``specification/domain.md`` is generated from this one.
"""

from typing import Final, NamedTuple

import msgspec

from wallet.events import Event, TransferChanged, WalletCreated, WalletRewound
from wallet.money import MINOR_MAX
from wallet.state import TransferStatus, TransferType, Wallet

_DEBIT, _CREDIT = TransferType.DEBIT, TransferType.CREDIT
_PENDING, _COMPLETED, _FAILED = (
    TransferStatus.PENDING,
    TransferStatus.COMPLETED,
    TransferStatus.FAILED,
)


class BalanceDelta(NamedTuple):
    """Changes of the three balances by one event, in multiples of the transfer's amount."""

    balance: int
    pending_debit: int
    pending_credit: int


Transition = tuple[TransferType, TransferStatus | None, TransferStatus]
"""Type, status before (None: the transfer did not exist), status after."""

BALANCE_EFFECTS: Final[dict[Transition, BalanceDelta]] = {
    (_DEBIT, None, _PENDING): BalanceDelta(0, +1, 0),
    (_DEBIT, None, _COMPLETED): BalanceDelta(+1, 0, 0),
    (_CREDIT, None, _PENDING): BalanceDelta(-1, 0, +1),
    (_CREDIT, None, _COMPLETED): BalanceDelta(-1, 0, 0),
    (_DEBIT, _PENDING, _COMPLETED): BalanceDelta(+1, -1, 0),
    (_DEBIT, _PENDING, _FAILED): BalanceDelta(0, -1, 0),
    (_CREDIT, _PENDING, _COMPLETED): BalanceDelta(0, 0, -1),
    (_CREDIT, _PENDING, _FAILED): BalanceDelta(+1, 0, -1),
}


def evolve(wallet: Wallet | None, event: Event) -> Wallet:
    """The wallet after ``event``; ``wallet`` is None only before its creation."""
    if isinstance(event, WalletCreated):
        assert wallet is None, "a wallet is created once"
        return _open_wallet(event)
    assert wallet is not None, "a transfer belongs to a wallet"
    if isinstance(event, WalletRewound):
        return msgspec.structs.replace(
            wallet, version=wallet.version + 1, updated_at=event.occurred_at
        )
    return _apply_transfer(wallet, event)


def _open_wallet(event: WalletCreated) -> Wallet:
    return Wallet(
        id=event.wallet_id,
        currency=event.currency,
        scale=event.scale,
        reference_id=event.reference_id,
        metadata=event.metadata,
        version=1,
        created_at=event.occurred_at,
        updated_at=event.occurred_at,
    )


def _apply_transfer(wallet: Wallet, event: TransferChanged) -> Wallet:
    transfer = event.transfer
    amount = transfer.amount
    effect = BALANCE_EFFECTS[transfer.type, event.previous, transfer.status]
    after = msgspec.structs.replace(
        wallet,
        version=wallet.version + 1,
        balance=wallet.balance + effect.balance * amount,
        pending_debit=wallet.pending_debit + effect.pending_debit * amount,
        pending_credit=wallet.pending_credit + effect.pending_credit * amount,
        updated_at=event.occurred_at,
    )
    assert_invariants(after)
    return after


def assert_invariants(wallet: Wallet) -> None:
    """Checked after every event, and after a wallet is read."""
    # INV-1: no balance below its limit.
    assert wallet.balance >= -wallet.overdraft_limit, "INV-1 balance below its limit"
    # INV-2: holds are never negative.
    assert wallet.pending_debit >= 0, "INV-2 negative pending_debit"
    assert wallet.pending_credit >= 0, "INV-2 negative pending_credit"
    # INV-3: every pending transfer can be settled without leaving the range of an amount.
    assert wallet.balance + wallet.pending_debit + wallet.pending_credit <= MINOR_MAX, "INV-3"


def fold_table() -> str:
    """The balance effects as a Markdown table."""
    sign = {0: "", 1: "+a", -1: "−a"}
    lines = ["| event | balance | pending_debit | pending_credit |", "|---|---|---|---|"]
    for (kind, before, after), effect in BALANCE_EFFECTS.items():
        name = f"{kind} {after}" if before is None else f"{before} {kind} → {after}"
        cells = (sign[effect.balance], sign[effect.pending_debit], sign[effect.pending_credit])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_created(wallet: Wallet) -> Wallet:
    """The wallet after its first event, from the fields that never change."""
    event = WalletCreated(
        wallet_id=wallet.id,
        currency=wallet.currency,
        scale=wallet.scale,
        reference_id=wallet.reference_id,
        metadata=wallet.metadata,
        occurred_at=wallet.created_at,
    )
    return evolve(None, event)
