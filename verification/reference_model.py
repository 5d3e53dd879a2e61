"""The effect of a transfer on its wallet's balances, from the definition of its states.

Independent of the service's own table: it defines not what each step does, but where the money is
in each state. A step is the difference between two states.
"""

from typing import Final

from verification.facts import Balances, Control, JournalEvent

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
    {
        ("", "pending"),
        ("", "completed"),
        ("pending", "completed"),
        ("pending", "failed"),
        ("pending", "pending"),
    }
)
"""Status before (empty: the transfer did not exist) and after. From pending to pending: a part."""


def step_allowed(transfer_type: str, before: str, after: str) -> bool:
    """Whether a transfer may go from status ``before`` to status ``after``."""
    return (before, after) in _STEPS and (transfer_type, after) in _SHARES


def apply_step(balances: Balances, event: JournalEvent) -> Balances:
    """``balances`` after a transfer went from one state to another.

    A transfer of which a part is completed is as two: one that is completed, and the rest.
    """
    kind, amount = event.transfer_type, event.amount
    was = _held(kind, event.previous_status, amount, event.completed_before)
    now = _held(kind, event.status, amount, event.completed)
    return Balances(
        balance=balances.balance + now[0] - was[0],
        pending_debit=balances.pending_debit + now[1] - was[1],
        pending_credit=balances.pending_credit + now[2] - was[2],
    )


def _held(kind: str, status: str, amount: int, completed: int) -> tuple[int, ...]:
    """What a transfer in this state adds to the three balances."""
    if not status:
        return _NO_SHARE
    done = _SHARES.get((kind, "completed"), _NO_SHARE)
    # What is not completed of a completed transfer was released.
    rest = _SHARES.get((kind, "pending"), _NO_SHARE) if status == "pending" else _NO_SHARE
    return tuple(
        completed * share + (amount - completed) * left
        for share, left in zip(done, rest, strict=True)
    )


def part_allowed(event: JournalEvent) -> bool:
    """Whether a part was completed as it may be: never less than before, never all of it."""
    if event.status == "completed" and not event.part:
        return event.completed_before < event.amount
    is_part = 0 < event.part < event.amount
    if event.previous_status != "pending":
        return not event.part and not event.completed_before
    if event.status == "failed":
        return event.part == event.completed_before and (is_part or not event.part)
    return is_part and event.completed_before < event.part


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
