"""Rule 2, the refunds: they go the other way, and all of a transfer's never sum up to more than it
has completed. (INV-16)

Computed from the refunds' own amounts. What events say of the sum is compared with that.
"""

from collections.abc import Iterable, Iterator, Sequence

from verification.facts import JournalEvent, Refunded
from verification.violations import Violation, ViolationKind


def check_refunds(
    events: Sequence[JournalEvent], refunds: Iterable[JournalEvent]
) -> Iterator[Violation]:
    """``events`` of one transfer, and ``refunds``: the events of all its refunds."""
    count = _Count()
    steps = [(one.version, False, one) for one in events]
    steps += [(one.version, True, one) for one in refunds]
    for _, is_refund, event in sorted(steps, key=lambda step: step[0]):
        wrong = count.refund(event) if is_refund else count.original(event)
        if wrong:
            yield Violation(
                kind=ViolationKind.REFUND_WRONG,
                wallet_id=event.wallet_id,
                detail=f"version={event.version} transfer={event.transfer_id} "
                f"refunds={event.refunds}: {wrong}",
            )


class _Count:
    """One transfer, and its refunds so far."""

    def __init__(self) -> None:
        self._last: JournalEvent | None = None
        self._completed: dict[str, int] = {}
        """By refund, as is what is pending of it."""
        self._pending: dict[str, int] = {}

    @property
    def _refunded(self) -> Refunded | None:
        if not self._completed:
            return None
        return Refunded(sum(self._completed.values()), sum(self._pending.values()))

    def original(self, event: JournalEvent) -> str:
        """What is wrong with the next event of the transfer itself; empty: nothing."""
        self._last = event
        if event.refunds or event.refunded == self._refunded:
            return ""
        return f"says {event.refunded}, its refunds {self._refunded}"

    def refund(self, event: JournalEvent) -> str:
        """What is wrong with the next event of one of its refunds; empty: nothing."""
        self._completed[event.transfer_id] = event.completed
        held = event.amount - event.completed if event.status == "pending" else 0
        self._pending[event.transfer_id] = held
        refunded, original = self._refunded, self._last
        if original is None:
            return "of a transfer that the wallet doesn't have"
        if original.refunds:
            return "of a refund"
        if original.transfer_type == event.transfer_type:
            return "in the same direction"
        if refunded is not None and refunded.completed + refunded.pending > original.completed:
            return f"{refunded} of {original.completed}"
        return "" if event.refunded == refunded else f"says {event.refunded}, in fact {refunded}"
