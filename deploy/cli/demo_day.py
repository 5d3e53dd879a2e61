"""A day of a small shop, as data: the same day every time.

Sales, refunds, the rent, a delivery that is held and one that is cancelled, salaries with a mistake
that is taken back, prepaid cards with a refusal and a reservation that stays open in the evening.
`deploy.cli.demo` plays it.
"""

import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

_PRICES: Final = ("2.40", "3.10", "3.80", "4.50", "5.20", "6.90", "8.40", "11.50", "14.90")
_SALES_BY_HOUR: Final = {8: 9, 9: 7, 10: 5, 11: 6, 12: 11, 13: 8, 14: 4, 15: 5, 16: 7, 17: 6}
_SEED: Final = 20
_FLOAT: Final = Decimal("150.00")
"""Change that is in the till in the morning and stays in the evening."""
_SALARIES: Final = {"ana": "1840.00", "ben": "1725.50", "chloe": "960.00"}

Outcome = Literal["completed", "pending", "complete", "revert", "refused"]
"""``completed``: at once. ``pending``: still open in the evening. ``complete``, ``revert``: held
first, then settled. ``refused``: more than there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A wallet of the shop. ``name`` is its reference_id without the prefix."""

    name: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Money that goes into a wallet (debit) or out of it (credit)."""

    account: str
    type: Literal["debit", "credit"]
    amount: str
    reference: str
    """Names the movement: its reference_id and its idempotency key."""
    outcome: Outcome = "completed"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sales:
    """The sales of one hour: one batch for the till."""

    account: str
    reference: str
    movements: tuple[Movement, ...]


Step = Movement | Sales

ACCOUNTS: Final = (
    Account(name="till", what="cash in the shop"),
    Account(name="bank", what="the shop's account"),
    *(Account(name=f"salary-{name}", what=f"what {name.title()} earned") for name in _SALARIES),
    Account(name="card-mia", what="a prepaid card"),
    Account(name="card-omar", what="a prepaid card with an open reservation"),
)


def steps() -> list[Step]:
    """The day, in order."""
    sales = _sales()
    taken = sum((Decimal(one.amount) for hour in sales for one in hour.movements), Decimal())
    return [*_morning(), *sales, *_cards(), *_salaries(), *_evening(taken)]


def _morning() -> list[Step]:
    return [
        _in("bank", "8500.00", "opening-balance", note="from last month"),
        _in("till", f"{_FLOAT}", "change", note="change for the day"),
        _out("bank", "1200.00", "rent", note="rent of the shop"),
        _out("bank", "640.00", "delivery-4471", "complete", note="flour, paid on delivery"),
        _out("bank", "310.00", "delivery-4472", "revert", note="coffee, the delivery never came"),
    ]


def _sales() -> list[Sales]:
    # Not for secrets: the same day every time.
    dice = random.Random(_SEED)  # noqa: S311
    hours: list[Sales] = []
    for hour, count in _SALES_BY_HOUR.items():
        name = f"sales-{hour:02}h"
        movements = tuple(
            _in("till", dice.choice(_PRICES), f"{name}-{number:02}")
            for number in range(1, count + 1)
        )
        hours.append(Sales(account="till", reference=name, movements=movements))
    return hours


def _cards() -> list[Step]:
    return [
        _in("card-mia", "50.00", "top-up-mia"),
        _out("card-mia", "12.40", "breakfast-mia", "complete", note="held, then paid"),
        _out("card-mia", "20.00", "table-mia", "revert", note="reserved, then cancelled"),
        _out("card-mia", "80.00", "cake-mia", "refused", note="more than the card has"),
        _in("card-omar", "30.00", "top-up-omar"),
        _out("card-omar", "15.00", "table-omar", "pending", note="reserved for tomorrow"),
        _out("till", "6.90", "refund-11h", note="a customer brought something back"),
    ]


def _salaries() -> list[Step]:
    steps: list[Step] = [
        _out("bank", "17255.00", "salary-ben-typo", "refused", note="a zero too many"),
        _out("bank", "1752.50", "salary-ben-swapped", "revert", note="two digits swapped"),
    ]
    for name, amount in _SALARIES.items():
        steps += [
            _out(
                "bank", amount, f"salary-{name}-out", "complete", note=f"salary of {name.title()}"
            ),
            _in(f"salary-{name}", amount, f"salary-{name}-in", "complete", note="salary"),
        ]
    return steps


def _evening(taken: Decimal) -> list[Step]:
    takings = f"{taken - Decimal('6.90')}"
    return [
        _out("till", takings, "takings-out", note="brought to the bank"),
        _in("bank", takings, "takings-in", note="takings of the day"),
    ]


def _in(
    account: str, amount: str, reference: str, outcome: Outcome = "completed", *, note: str = ""
) -> Movement:
    return Movement(
        account=account,
        type="debit",
        amount=amount,
        reference=reference,
        outcome=outcome,
        note=note,
    )


def _out(
    account: str, amount: str, reference: str, outcome: Outcome = "completed", *, note: str = ""
) -> Movement:
    return Movement(
        account=account,
        type="credit",
        amount=amount,
        reference=reference,
        outcome=outcome,
        note=note,
    )
