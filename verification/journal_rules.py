"""Rule 2: versions are contiguous, balances follow from the events, none is below its limit.

`WalletReplay` takes a wallet's events one by one and keeps a few numbers, so that a journal of any
length can be replayed as it is read.
"""

from collections.abc import Iterator
from datetime import datetime

from verification.expiry_rules import check_time
from verification.facts import Balances, Control, JournalEvent
from verification.reference_model import (
    apply_step,
    change_allowed,
    part_allowed,
    step_allowed,
)
from verification.violations import Violation, ViolationKind


class WalletReplay:
    """One wallet's journal, event by event in version order."""

    __slots__ = ("balances", "control", "version", "wallet_id")

    def __init__(self, wallet_id: str) -> None:
        self.wallet_id = wallet_id
        self.control = Control()
        self.version = 0
        self.balances = Balances()

    def add(self, event: JournalEvent) -> Iterator[Violation]:
        """Check the next event; then continue from its balances, to report each violation once."""
        if event.version <= self.version:
            yield self._violation(ViolationKind.VERSION_REPEATED, event, f"after {self.version}")
            return
        if event.version != self.version + 1:
            yield self._violation(ViolationKind.VERSION_GAP, event, f"after {self.version}")
        else:
            yield from self._check_step(event)
        self.control = event.control or self.control
        yield from self._check_balances(event)
        self.version = event.version
        self.balances = event.after

    def _check_step(self, event: JournalEvent) -> Iterator[Violation]:
        if event.version == 1:
            allowed = event.type == "wallet.created" and not event.transfer_id
            expected = Balances()
        elif event.type == "wallet.rewound":
            allowed, expected = not event.transfer_id, self.balances
        elif event.control is not None:
            allowed = change_allowed(event.type, self.control, event.control)
            expected = Balances() if event.type == "wallet.closed" else self.balances
        else:
            stopped = event.status != "failed" and self.control.stops(event.transfer_type)
            allowed = (
                step_allowed(event.transfer_type, event.previous_status, event.status)
                and bool(event.transfer_id)
                and event.amount > 0
                and part_allowed(event)
                and not stopped
                and not (_should_complete(event) and not self.control.stops(event.transfer_type))
                and self.control.status != "closed"
            )
            expected = apply_step(self.balances, event)
        if not allowed:
            what = f"{event.previous_status or 'nothing'} -> {event.transfer_type} {event.type}"
            yield self._violation(ViolationKind.TRANSITION_FORBIDDEN, event, what)
        elif event.after != expected:
            yield self._violation(
                ViolationKind.FOLD_BROKEN,
                event,
                f"left {_format(event.after)}, expected {_format(expected)}",
            )

    def _check_balances(self, event: JournalEvent) -> Iterator[Violation]:
        after = event.after
        limit = self.control.overdraft_limit
        if after.balance < -limit:
            yield self._violation(
                ViolationKind.BALANCE_BELOW_LIMIT, event, f"{after.balance} < -{limit}"
            )
        if after.pending_debit < 0 or after.pending_credit < 0:
            yield self._violation(ViolationKind.HOLD_NEGATIVE, event, _format(after))

    def _violation(self, kind: ViolationKind, event: JournalEvent, what: str) -> Violation:
        return Violation(
            kind=kind, wallet_id=self.wallet_id, detail=f"version={event.version} {what}"
        )


def _should_complete(event: JournalEvent) -> bool:
    """Whether it failed by an expiry that completes, unless the direction is frozen."""
    return event.failure_reason == "expired" and event.on_expiry == "complete"


class TransferLifecycles:
    """Whether one wallet's transfers are created once and settled at most once, and in time."""

    __slots__ = ("_open", "_settled", "_was_rewound", "wallet_id")

    def __init__(self, wallet_id: str, *, was_rewound: bool = False) -> None:
        """``was_rewound``: it has recovered events, which were decided at an earlier time."""
        self.wallet_id = wallet_id
        self._was_rewound = was_rewound
        self._open: dict[str, _Opened] = {}
        self._settled: set[str] = set()

    def add(self, event: JournalEvent) -> Iterator[Violation]:
        transfer_id = event.transfer_id
        if not transfer_id:
            return
        known = transfer_id in self._open or transfer_id in self._settled
        if not event.previous_status:
            if known:
                yield self._violation(ViolationKind.TRANSFER_CREATED_TWICE, event)
            elif event.status == "pending":
                self._open[transfer_id] = (*_opened_by(event), 0)
            else:
                self._settled.add(transfer_id)
            return
        if transfer_id in self._settled:
            yield self._violation(ViolationKind.TRANSFER_SETTLED_TWICE, event)
        elif self._open.pop(transfer_id, None) != (*_opened_by(event), event.completed_before):
            yield self._violation(ViolationKind.SETTLEMENT_WITHOUT_TRANSFER, event)
        elif not self._was_rewound:
            yield from check_time(event)
        if event.status == "pending":
            self._open[transfer_id] = (*_opened_by(event), event.completed)
        else:
            self._settled.add(transfer_id)

    def _violation(self, kind: ViolationKind, event: JournalEvent) -> Violation:
        return Violation(
            kind=kind,
            wallet_id=self.wallet_id,
            detail=f"version={event.version} transfer={event.transfer_id} {event.type}",
        )


_Opened = tuple[str, int, datetime | None, str, str, int]
"""What a settlement doesn't change, and what has been completed so far."""


def _opened_by(event: JournalEvent) -> tuple[str, int, datetime | None, str, str]:
    return (event.transfer_type, event.amount, event.expires_at, event.on_expiry, event.refunds)


def _format(balances: Balances) -> str:
    return f"{balances.balance}/{balances.pending_debit}/{balances.pending_credit}"
