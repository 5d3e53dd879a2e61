"""The effect of a transfer on its wallet's balances, from the definition of its states.

Independent of the service's own table: it defines not what each step does, but where the money is
in each state. A step is the difference between two states.
"""

from typing import Final

from verification.facts import Balances, Control

_NO_SHARE: Final = (0, 0, 0)

_SHARES: Final[dict[tuple[str, str], tuple[int, int, int]]] = {
    # (type, status): share of balance, pending_debit, pending_credit
    ("debit", "pending"): (0, 1, 0),
    ("debit", "completed"): (1, 0, 0),
    ("debit", "failed"): _NO_SHARE,
    ("credit", "pending"): (-1, 0, 1),
    ("credit", "completed"): (-1, 0, 0),
    ("credit", "failed"): _NO_SHARE,
}

_STEPS: Final = frozenset(
    {("", "pending"), ("", "completed"), ("pending", "completed"), ("pending", "failed")}
)
"""Status before (empty: the transfer did not exist) and after."""


def step_allowed(transfer_type: str, before: str, after: str) -> bool:
    """Whether a transfer may go from status ``before`` to status ``after``."""
    return (before, after) in _STEPS and (transfer_type, after) in _SHARES


def apply_step(
    balances: Balances, transfer_type: str, before: str, after: str, amount: int, part: int = 0
) -> Balances:
    """``balances`` after a transfer of ``amount`` went from status ``before`` to ``after``.

    ``part``: what was completed of it, if not all: as if it were two transfers, of which the other
    one failed.
    """
    if part:
        failed = apply_step(balances, transfer_type, before, "failed", amount - part)
        return apply_step(failed, transfer_type, before, after, part)
    was = _SHARES.get((transfer_type, before), _NO_SHARE)
    now = _SHARES.get((transfer_type, after), _NO_SHARE)
    return Balances(
        balance=balances.balance + (now[0] - was[0]) * amount,
        pending_debit=balances.pending_debit + (now[1] - was[1]) * amount,
        pending_credit=balances.pending_credit + (now[2] - was[2]) * amount,
    )


def part_allowed(before: str, after: str, amount: int, part: int) -> bool:
    """Whether only ``part`` may be completed; 0: it is all or nothing."""
    return not part or ((before, after) == ("pending", "completed") and 0 < part < amount)


def minor_units(amount: str) -> int:
    """Minor units of a decimal string with all its decimals."""
    return int(amount.replace(".", ""))


def change_allowed(type: str, before: Control, after: Control) -> bool:
    """Whether an event of this type leads from one control of a wallet to the other."""
    if before.status == "closed" or (after.status == "frozen") != bool(after.frozen):
        return False
    stays = (before.overdraft_limit == after.overdraft_limit) or type == "wallet.updated"
    statuses = {
        "wallet.updated": {before.status},
        "wallet.frozen": {"frozen"},
        "wallet.unfrozen": {"active"} if before.status == "frozen" else set(),
        "wallet.closed": {"closed"},
    }
    return stays and after.status in statuses.get(type, ())
