"""How events change a wallet, as defined by the table below.

``evolve`` never refuses: the rules refuse a command before there is an event. The table in
``specification/domain.md`` is generated from this one.
"""

from typing import Final, NamedTuple

import msgspec

from wallet.events import Event, TransferChanged, WalletChanged, WalletCreated
from wallet.money import MINOR_MAX
from wallet.state import Refunded, Transfer, TransferStatus, TransferType, Wallet, WalletStatus

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


class RefundDelta(NamedTuple):
    """Changes of what is refunded of a transfer by one event of a refund, in multiples of the
    refund's amount."""

    completed: int
    pending: int


REFUND_EFFECTS: Final[dict[tuple[TransferStatus | None, TransferStatus], RefundDelta]] = {
    (None, _PENDING): RefundDelta(0, +1),
    (None, _COMPLETED): RefundDelta(+1, 0),
    (_PENDING, _COMPLETED): RefundDelta(+1, -1),
    (_PENDING, _FAILED): RefundDelta(0, -1),
}
"""Of the transfer that is refunded. The balances change as by any transfer."""


def evolve(wallet: Wallet | None, event: Event) -> Wallet:
    """The wallet after ``event``; ``wallet`` is None only before its creation."""
    if isinstance(event, WalletCreated):
        assert wallet is None, "a wallet is created once"
        return _open_wallet(event)
    assert wallet is not None, "a transfer belongs to a wallet"
    if isinstance(event, TransferChanged):
        return _apply_transfer(wallet, event)
    after = msgspec.structs.replace(
        wallet, version=wallet.version + 1, updated_at=event.occurred_at
    )
    return _apply_change(after, event) if isinstance(event, WalletChanged) else after


def _open_wallet(event: WalletCreated) -> Wallet:
    return Wallet(
        id=event.wallet_id,
        currency=event.currency,
        scale=event.scale,
        reference_id=event.reference_id,
        metadata=event.metadata,
        overdraft_limit=event.overdraft_limit,
        version=1,
        created_at=event.occurred_at,
        updated_at=event.occurred_at,
    )


def _apply_change(wallet: Wallet, event: WalletChanged) -> Wallet:
    assert wallet.status is not WalletStatus.CLOSED, "INV-14 a closed wallet never changes"
    after = msgspec.structs.replace(
        wallet,
        status=event.status,
        freeze=event.freeze,
        overdraft_limit=event.overdraft_limit,
        metadata=event.metadata,
    )
    if after.status is WalletStatus.CLOSED:
        empty = after.balance == after.pending_debit == after.pending_credit == 0
        assert empty, "INV-14 a closed wallet is empty"
    assert_invariants(after)
    return after


def _apply_transfer(wallet: Wallet, event: TransferChanged) -> Wallet:
    assert wallet.status is not WalletStatus.CLOSED, "INV-14 a closed wallet never changes"
    transfer = event.transfer
    transition = (transfer.type, event.previous, transfer.status)
    if transfer.part is None:
        after = _move(wallet, transition, transfer.amount - event.completed_before)
    else:
        after = _settle_in_part(wallet, event)
    after = msgspec.structs.replace(after, version=wallet.version + 1, updated_at=event.occurred_at)
    assert_invariants(after)
    return after


def _move(wallet: Wallet, transition: Transition, amount: int) -> Wallet:
    effect = BALANCE_EFFECTS[transition]
    return msgspec.structs.replace(
        wallet,
        balance=wallet.balance + effect.balance * amount,
        pending_debit=wallet.pending_debit + effect.pending_debit * amount,
        pending_credit=wallet.pending_credit + effect.pending_credit * amount,
    )


def _settle_in_part(wallet: Wallet, event: TransferChanged) -> Wallet:
    """Two numbers move: what settles now does what a completion does, and what is released now a
    failure."""
    transfer = event.transfer
    assert event.previous is _PENDING, "INV-4 a part is of a hold"
    assert 0 < transfer.completed_amount < transfer.amount, "INV-4 a part is less than the whole"
    assert event.settled_now >= 0, "INV-4 what was completed stays so"
    settles = transfer.status is not _FAILED
    assert settles == (event.settled_now > 0), "INV-4 a failure completes nothing, a part something"
    settled = _move(wallet, (transfer.type, _PENDING, _COMPLETED), event.settled_now)
    return _move(settled, (transfer.type, _PENDING, _FAILED), event.released_now)


def count_refund(original: Transfer, event: TransferChanged) -> TransferChanged:
    """``event``, of a refund of ``original``, with what is refunded of that after it."""
    refund = event.transfer
    assert refund.refunds == original.id, "INV-16 a refund names what it refunds"
    assert refund.type is not original.type, "INV-16 a refund goes the other way"
    assert original.refunds is None, "INV-16 a refund is not refunded"
    before = original.refunded or Refunded()
    if event.previous is None:
        after = _count(before, (None, refund.status), refund.amount)
    else:
        settled = _count(before, (_PENDING, _COMPLETED), event.settled_now)
        after = _count(settled, (_PENDING, _FAILED), event.released_now)
    assert_refunded(original, after)
    return msgspec.structs.replace(event, refunded=after)


def _count(
    refunded: Refunded, transition: tuple[TransferStatus | None, TransferStatus], amount: int
) -> Refunded:
    effect = REFUND_EFFECTS[transition]
    return Refunded(
        refunded.completed + effect.completed * amount, refunded.pending + effect.pending * amount
    )


def assert_refunded(original: Transfer, refunded: Refunded) -> None:
    """INV-16: refunds return at most what was completed."""
    assert refunded.completed >= 0, "INV-16 negative refunds"
    assert refunded.pending >= 0, "INV-16 negative pending refunds"
    assert refunded.total <= original.completed_amount, "INV-16 more refunded than completed"


def assert_invariants(wallet: Wallet) -> None:
    """Checked after every event, and after a wallet is read."""
    # INV-1: no balance below its limit.
    assert wallet.balance >= -wallet.overdraft_limit, "INV-1 balance below its limit"
    # INV-2: holds are never negative.
    assert wallet.pending_debit >= 0, "INV-2 negative pending_debit"
    assert wallet.pending_credit >= 0, "INV-2 negative pending_credit"
    # INV-3: every pending transfer can be settled without leaving the range of an amount.
    assert wallet.balance + wallet.pending_debit + wallet.pending_credit <= MINOR_MAX, "INV-3"
    # INV-14: a frozen wallet says in which direction.
    assert (wallet.status is WalletStatus.FROZEN) == (wallet.freeze is not None), "INV-14 freeze"


def refund_table() -> str:
    """The effects of refunds on what they refund, as a Markdown table."""
    sign = {0: "", 1: "+a", -1: "−a"}
    lines = ["| event of a refund | refunded_amount | refund_pending_amount |", "|---|---|---|"]
    for (before, after), effect in REFUND_EFFECTS.items():
        name = str(after) if before is None else f"{before} → {after}"
        lines.append(f"| {name} | {sign[effect.completed]} | {sign[effect.pending]} |")
    return "\n".join(lines)


def fold_table() -> str:
    """The balance effects as a Markdown table."""
    sign = {0: "", 1: "+a", -1: "−a"}
    lines = ["| event | balance | pending_debit | pending_credit |", "|---|---|---|---|"]
    for (kind, before, after), effect in BALANCE_EFFECTS.items():
        name = f"{kind} {after}" if before is None else f"{before} {kind} → {after}"
        cells = (sign[effect.balance], sign[effect.pending_debit], sign[effect.pending_credit])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
