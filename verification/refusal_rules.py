"""Rule 1, the refusals: each was right at some moment between the request and its answer.

A refusal that rests on a remembered balance, and not on the wallet's, is a lie to the client
(money that is there is refused), though it breaks no sum.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator

from verification.fact_index import ClientOperation, FactIndex
from verification.facts import ClientCall, JournalEvent
from verification.real_time_rules import VersionLowerBounds
from verification.violations import Violation, ViolationKind


class VersionUpperBounds:
    """For each wallet: the highest version whose request had started by a moment."""

    def __init__(self, indexed: FactIndex) -> None:
        starts: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for intent in indexed.intents.values():
            for event in intent.events:
                starts[event.wallet_id].append((intent.started, event.version))
        self._starts: dict[str, list[int]] = {}
        self._highest: dict[str, list[int]] = {}
        for wallet_id, found in starts.items():
            found.sort()
            highest = 0
            self._starts[wallet_id] = [started for started, _ in found]
            self._highest[wallet_id] = [highest := max(highest, version) for _, version in found]

    def at(self, wallet_id: str, moment: int) -> int:
        """Highest version asked for before ``moment``; 0 if none."""
        index = bisect_left(self._starts.get(wallet_id, ()), moment)
        return self._highest[wallet_id][index - 1] if index else 0


def judge_refusals(indexed: FactIndex, floors: VersionLowerBounds) -> Iterator[Violation]:
    """Every refusal that was decided anew was right at some version that the wallet then had."""
    ceilings = VersionUpperBounds(indexed)
    for intent in indexed.intents.values():
        for attempt in intent.attempts:
            if attempt.outcome == "refused" and not attempt.replayed:
                yield from _judge(indexed, intent, attempt, floors, ceilings)


def _judge(
    indexed: FactIndex,
    intent: ClientOperation,
    attempt: ClientCall,
    floors: VersionLowerBounds,
    ceilings: VersionUpperBounds,
) -> Iterator[Violation]:
    judge = _JUDGES.get(attempt.code)
    if judge is None:
        return
    lowest = floors.before(attempt.wallet_id, intent.started)
    highest = max(lowest, ceilings.at(attempt.wallet_id, attempt.ended))
    if not judge(indexed, attempt, lowest, highest):
        yield Violation(
            kind=ViolationKind.REFUSAL_UNJUSTIFIED,
            wallet_id=attempt.wallet_id,
            detail=f"intent={intent.name} {attempt.operation} {attempt.code}: not so at any "
            f"version from {lowest} to {highest}",
        )


def _insufficient(indexed: FactIndex, attempt: ClientCall, lowest: int, highest: int) -> bool:
    limit = indexed.limits.get(attempt.wallet_id, 0)
    return any(
        event is not None and event.after.balance + limit < attempt.amount
        for version in range(max(lowest, 1), highest + 1)
        for event in (indexed.at(attempt.wallet_id, version),)
    )


def _settled_as(status: str) -> "Judge":
    def judge(indexed: FactIndex, attempt: ClientCall, _lowest: int, highest: int) -> bool:
        event = indexed.settlements.get(attempt.transfer_id)
        return event is not None and event.status == status and event.version <= highest

    return judge


def _no_wallet(_indexed: FactIndex, _attempt: ClientCall, lowest: int, _highest: int) -> bool:
    return lowest == 0


def _no_transfer(indexed: FactIndex, attempt: ClientCall, lowest: int, _highest: int) -> bool:
    event: JournalEvent | None = indexed.creations.get(attempt.transfer_id)
    return event is None or event.wallet_id != attempt.wallet_id or event.version > lowest


Judge = Callable[[FactIndex, ClientCall, int, int], bool]

_JUDGES: dict[str, Judge] = {
    "insufficient_funds": _insufficient,
    "transfer_already_completed": _settled_as("completed"),
    "transfer_already_failed": _settled_as("failed"),
    "wallet_not_found": _no_wallet,
    "transfer_not_found": _no_transfer,
}
