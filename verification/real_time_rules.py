"""Rule 3: per wallet, what was answered before something else was asked comes before it.

Each wallet's versions are one total order. It is the order of a linearizable history if a
write that starts after an answer that told version v ends up above v, and a strong read, or a
repeated settlement, at v or above. That is one pass over starts and ends by time.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from verification.fact_index import ClientOperation, FactIndex, reported_state_of
from verification.facts import ClientCall
from verification.violations import Violation, ViolationKind


class VersionLowerBounds:
    """For each wallet: the highest version that had been told by a moment."""

    def __init__(self, indexed: FactIndex) -> None:
        told: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for attempt in indexed.evidence.history or ():
            if attempt.outcome == "acknowledged" and attempt.version:
                told[_wallet_of(attempt)].append((attempt.ended, attempt.version))
        self._ends: dict[str, list[int]] = {}
        self._highest: dict[str, list[int]] = {}
        for wallet_id, ends in told.items():
            ends.sort()
            self._ends[wallet_id] = [ended for ended, _ in ends]
            self._highest[wallet_id] = list(_running_maximum(version for _, version in ends))

    def before(self, wallet_id: str, moment: int) -> int:
        """Highest version told strictly before ``moment``; 0 if none."""
        index = bisect_left(self._ends.get(wallet_id, ()), moment)
        return self._highest[wallet_id][index - 1] if index else 0


def _running_maximum(versions: Iterator[int]) -> Iterator[int]:
    highest = 0
    for version in versions:
        highest = max(highest, version)
        yield highest


def _wallet_of(attempt: ClientCall) -> str:
    if attempt.wallet_id:
        return attempt.wallet_id
    told = reported_state_of(attempt)
    return told.wallet_id if told else ""


def judge_order(indexed: FactIndex, floors: VersionLowerBounds) -> Iterator[Violation]:
    """All of rule 3."""
    for intent in indexed.intents.values():
        yield from _judge_write(intent, floors)
        yield from _judge_repeats(intent, floors)
    for attempt in indexed.evidence.history or ():
        if attempt.operation == "read" and attempt.outcome == "acknowledged":
            yield from _judge_read(indexed, attempt, floors)


def _judge_write(intent: ClientOperation, floors: VersionLowerBounds) -> Iterator[Violation]:
    for event in intent.events[:1]:
        floor = floors.before(event.wallet_id, intent.started)
        if event.version <= floor:
            yield Violation(
                kind=ViolationKind.WRITE_OUT_OF_ORDER,
                wallet_id=event.wallet_id,
                detail=f"intent={intent.name} version={event.version}, but {floor} was told "
                "before it started",
            )


def _judge_repeats(intent: ClientOperation, floors: VersionLowerBounds) -> Iterator[Violation]:
    """A settlement that repeats another tells the wallet as of now."""
    if intent.events or intent.first.operation not in ("complete", "revert"):
        return
    for attempt in intent.acknowledged:
        floor = floors.before(attempt.wallet_id, intent.started)
        if not attempt.replayed and attempt.version < floor:
            yield _stale_read(attempt, floor)


def _judge_read(
    indexed: FactIndex, attempt: ClientCall, floors: VersionLowerBounds
) -> Iterator[Violation]:
    told = reported_state_of(attempt)
    event = indexed.at(attempt.wallet_id, attempt.version)
    if told is None or event is None or told.sums != event.after:
        yield Violation(
            kind=ViolationKind.READ_DIFFERS,
            wallet_id=attempt.wallet_id,
            detail=f"version={attempt.version} told {told}, journal {event}",
        )
    floor = floors.before(attempt.wallet_id, attempt.started) if attempt.strong else 0
    if attempt.version < max(floor, attempt.min_version):
        yield _stale_read(attempt, max(floor, attempt.min_version))


def _stale_read(attempt: ClientCall, floor: int) -> Violation:
    return Violation(
        kind=ViolationKind.READ_WENT_BACK,
        wallet_id=attempt.wallet_id,
        detail=f"intent={attempt.operation_id} reported version {attempt.version}, "
        f"should be {floor} or more",
    )
