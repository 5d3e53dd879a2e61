"""Rule 1, the refusals: each was correct at some time between the request and its response.

A refusal that rests on a stale balance is wrong (the client has the money), though all balances
add up.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator

from verification.fact_index import ClientOperation, FactIndex
from verification.facts import Balances, ClientCall, Control, JournalEvent, Refunded
from verification.real_time_rules import VersionLowerBounds
from verification.violations import Violation, ViolationKind


class VersionUpperBounds:
    """For each wallet: the highest version whose request had started by a given time."""

    def __init__(self, index: FactIndex) -> None:
        self._index = index
        starts: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for operation in index.operations.values():
            for event in operation.events:
                starts[event.wallet_id].append((operation.started, event.version))
        self._starts: dict[str, list[int]] = {}
        self._highest: dict[str, list[int]] = {}
        for wallet_id, found in starts.items():
            found.sort()
            highest = 0
            self._starts[wallet_id] = [started for started, _ in found]
            self._highest[wallet_id] = [highest := max(highest, version) for _, version in found]

    def at(self, wallet_id: str, moment: int) -> int:
        """Highest version whose request started before ``moment``; 0 if none."""
        index = bisect_left(self._starts.get(wallet_id, ()), moment)
        highest = self._highest[wallet_id][index - 1] if index else 0
        # Nobody asks for an expiry: it may come at any moment.
        while (event := self._index.at(wallet_id, highest + 1)) is not None and event.is_expiry:
            highest += 1
        return highest


def check_refusals(index: FactIndex, lower_bounds: VersionLowerBounds) -> Iterator[Violation]:
    """Every refusal that is no replay was correct at a version that the wallet had then."""
    upper_bounds = VersionUpperBounds(index)
    for operation in index.operations.values():
        for call in operation.calls:
            if call.outcome == "refused" and not call.replayed:
                yield from _check_refusal(index, operation, call, lower_bounds, upper_bounds)


def _check_refusal(
    index: FactIndex,
    operation: ClientOperation,
    call: ClientCall,
    lower_bounds: VersionLowerBounds,
    upper_bounds: VersionUpperBounds,
) -> Iterator[Violation]:
    is_justified = _JUSTIFICATIONS.get(call.code)
    if is_justified is None:
        return
    lowest = lower_bounds.before(call.wallet_id, operation.started)
    highest = max(lowest, upper_bounds.at(call.wallet_id, call.ended))
    if not is_justified(index, call, lowest, highest):
        yield Violation(
            kind=ViolationKind.REFUSAL_UNJUSTIFIED,
            wallet_id=call.wallet_id,
            detail=f"operation_id={operation.name} {call.operation} {call.code}: wrong at every "
            f"version from {lowest} to {highest}",
        )


def _insufficient(index: FactIndex, call: ClientCall, lowest: int, highest: int) -> bool:
    refunded = index.creations.get(call.transfer_id) if call.operation == "refund" else None
    if refunded is not None and refunded.transfer_type == "credit":
        return False  # Its refund puts money in.
    # Of a refund of all that is left, some of it.
    asked = call.amount or (refunded.amount if refunded is not None else 0)
    return any(
        event.after.balance + control.overdraft_limit < asked
        for event, control in _states(index, call, lowest, highest)
    )


def _frozen(index: FactIndex, call: ClientCall, lowest: int, highest: int) -> bool:
    kind: str = call.operation
    if kind in ("complete", "refund"):
        created = index.creations.get(call.transfer_id)
        is_debit = created is not None and created.transfer_type == "debit"
        kind = "debit" if is_debit == (kind == "complete") else "credit"
    return any(
        control.status == "frozen" and control.stops(kind)
        for _, control in _states(index, call, lowest, highest)
    )


def _closed(index: FactIndex, call: ClientCall, lowest: int, highest: int) -> bool:
    return any(control.status == "closed" for _, control in _states(index, call, lowest, highest))


def _overdraft_used(index: FactIndex, call: ClientCall, lowest: int, highest: int) -> bool:
    return any(
        event.after.balance < -call.amount for event, _ in _states(index, call, lowest, highest)
    )


def _not_empty(index: FactIndex, call: ClientCall, lowest: int, highest: int) -> bool:
    return any(event.after != Balances() for event, _ in _states(index, call, lowest, highest))


def _states(
    index: FactIndex, call: ClientCall, lowest: int, highest: int
) -> Iterator[tuple[JournalEvent, Control]]:
    """The wallet at each version from ``lowest`` to ``highest``."""
    for version in range(max(lowest, 1), highest + 1):
        event = index.at(call.wallet_id, version)
        if event is not None:
            yield event, index.control_at(call.wallet_id, version)


def _settled_as(status: str) -> "Justification":
    def is_justified(index: FactIndex, call: ClientCall, _lowest: int, highest: int) -> bool:
        event = index.settlements.get(call.transfer_id)
        return event is not None and event.status == status and event.version <= highest

    return is_justified


def _exceeds(index: FactIndex, call: ClientCall, lowest: int, highest: int) -> bool:
    """Whether less than was asked for was held at some time. Of a settled transfer, no amount that
    it had at first is too much."""
    created = index.creations.get(call.transfer_id)
    if created is None:
        return False
    return created.amount < call.amount or any(
        event.status == "pending" and event.amount - event.completed < call.amount
        for event in _transfer_events(index, call.transfer_id, lowest, highest)
    )


def _transfer_events(
    index: FactIndex, transfer_id: str, lowest: int, highest: int
) -> Iterator[JournalEvent]:
    """The event that made a transfer what it was at ``lowest``, and its later ones to
    ``highest``."""
    before: JournalEvent | None = None
    for event in index.refundable.get(transfer_id, ()):
        if event.transfer_id != transfer_id or event.version > highest:
            continue
        if before is not None and event.version > lowest:
            yield before
        before = event
    if before is not None:
        yield before


def _not_completed(index: FactIndex, call: ClientCall, lowest: int, highest: int) -> bool:
    """Whether the transfer had completed nothing at some time."""
    return any(done == 0 for done, _ in _refundable(index, call.transfer_id, lowest, highest))


def _is_refund(index: FactIndex, call: ClientCall, _lowest: int, _highest: int) -> bool:
    created = index.creations.get(call.transfer_id)
    return created is not None and bool(created.refunds)


def _exceeds_refundable(index: FactIndex, call: ClientCall, lowest: int, highest: int) -> bool:
    """Whether less than was asked for was left at some time."""
    return any(
        done - refunded.completed - refunded.pending < (call.amount or 1)
        for done, refunded in _refundable(index, call.transfer_id, lowest, highest)
    )


def _refundable(
    index: FactIndex, transfer_id: str, lowest: int, highest: int
) -> Iterator[tuple[int, Refunded]]:
    """What a transfer has completed, and what is refunded of it, at each version that it changed
    at, from what it was at ``lowest`` to ``highest``."""
    done, refunded = 0, Refunded(0, 0)
    for event in index.refundable.get(transfer_id, ()):
        if event.version > highest:
            break
        if event.version > lowest:
            yield done, refunded
        if event.transfer_id == transfer_id:
            done = event.completed
        else:
            refunded = event.refunded or refunded
    yield done, refunded


def _no_wallet(_index: FactIndex, _call: ClientCall, lowest: int, _highest: int) -> bool:
    return lowest == 0


def _no_transfer(index: FactIndex, call: ClientCall, lowest: int, _highest: int) -> bool:
    event: JournalEvent | None = index.creations.get(call.transfer_id)
    return event is None or event.wallet_id != call.wallet_id or event.version > lowest


Justification = Callable[[FactIndex, ClientCall, int, int], bool]

_JUSTIFICATIONS: dict[str, Justification] = {
    "insufficient_funds": _insufficient,
    "transfer_already_completed": _settled_as("completed"),
    "transfer_already_failed": _settled_as("failed"),
    "amount_exceeds_hold": _exceeds,
    "transfer_not_completed": _not_completed,
    "transfer_is_refund": _is_refund,
    "amount_exceeds_refundable": _exceeds_refundable,
    "wallet_not_found": _no_wallet,
    "transfer_not_found": _no_transfer,
    "wallet_frozen": _frozen,
    "wallet_closed": _closed,
    "overdraft_in_use": _overdraft_used,
    "wallet_not_empty": _not_empty,
}
