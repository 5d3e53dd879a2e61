"""Rule 3: real-time order per wallet (linearizability).

Each wallet's versions are one total order. The history is linearizable if a write that starts after
a response with version v gets a version above v, and a strong read, or a repeated settlement,
returns v or above. That is one pass over starts and ends by time.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from verification.fact_index import ClientOperation, FactIndex, reported_state_of
from verification.facts import ClientCall
from verification.violations import Violation, ViolationKind


class VersionLowerBounds:
    """For each wallet: the highest version that was reported by a given time."""

    def __init__(self, index: FactIndex) -> None:
        reported: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for call in index.facts.history or ():
            if call.outcome == "acknowledged" and call.version:
                reported[_wallet_of(call)].append((call.ended, call.version))
        self._ends: dict[str, list[int]] = {}
        self._highest: dict[str, list[int]] = {}
        for wallet_id, ends in reported.items():
            ends.sort()
            self._ends[wallet_id] = [ended for ended, _ in ends]
            self._highest[wallet_id] = list(_running_maximum(version for _, version in ends))

    def before(self, wallet_id: str, moment: int) -> int:
        """Highest version reported strictly before ``moment``; 0 if none."""
        index = bisect_left(self._ends.get(wallet_id, ()), moment)
        return self._highest[wallet_id][index - 1] if index else 0


def _running_maximum(versions: Iterator[int]) -> Iterator[int]:
    highest = 0
    for version in versions:
        highest = max(highest, version)
        yield highest


def _wallet_of(call: ClientCall) -> str:
    if call.wallet_id:
        return call.wallet_id
    reported = reported_state_of(call)
    return reported.wallet_id if reported else ""


def check_order(index: FactIndex, lower_bounds: VersionLowerBounds) -> Iterator[Violation]:
    """All of rule 3."""
    for operation in index.operations.values():
        yield from _check_write(operation, lower_bounds)
        yield from _check_repeats(operation, lower_bounds)
    for call in index.facts.history or ():
        if call.operation == "read" and call.outcome == "acknowledged":
            yield from _check_read(index, call, lower_bounds)


def _check_write(
    operation: ClientOperation, lower_bounds: VersionLowerBounds
) -> Iterator[Violation]:
    for event in operation.events[:1]:
        lower_bound = lower_bounds.before(event.wallet_id, operation.started)
        if event.version <= lower_bound:
            yield Violation(
                kind=ViolationKind.WRITE_OUT_OF_ORDER,
                wallet_id=event.wallet_id,
                detail=f"operation_id={operation.name} version={event.version}, but "
                f"{lower_bound} was reported before it started",
            )


def _check_repeats(
    operation: ClientOperation, lower_bounds: VersionLowerBounds
) -> Iterator[Violation]:
    """A settlement that repeats another returns the current wallet."""
    if operation.events or operation.first.operation not in ("complete", "revert"):
        return
    for call in operation.acknowledged:
        lower_bound = lower_bounds.before(call.wallet_id, operation.started)
        if not call.replayed and call.version < lower_bound:
            yield _stale_read(call, lower_bound)


def _check_read(
    index: FactIndex, call: ClientCall, lower_bounds: VersionLowerBounds
) -> Iterator[Violation]:
    reported = reported_state_of(call)
    event = index.at(call.wallet_id, call.version)
    if reported is None or event is None or reported.balances != event.after:
        yield Violation(
            kind=ViolationKind.READ_DIFFERS,
            wallet_id=call.wallet_id,
            detail=f"version={call.version} reported {reported}, journal {event}",
        )
    lower_bound = lower_bounds.before(call.wallet_id, call.started) if call.strong else 0
    if call.version < max(lower_bound, call.min_version):
        yield _stale_read(call, max(lower_bound, call.min_version))


def _stale_read(call: ClientCall, lower_bound: int) -> Violation:
    return Violation(
        kind=ViolationKind.READ_WENT_BACK,
        wallet_id=call.wallet_id,
        detail=f"operation_id={call.operation_id} reported version {call.version}, "
        f"expected {lower_bound} or more",
    )
