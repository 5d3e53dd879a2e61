"""Rule 1: every acknowledged write is in the journal exactly once, every refused one is not, and
every unknown one at most once, with a retry that learned which.

A settlement that finds its transfer settled that way already is acknowledged without an event of
its own: then the transfer's event must be there, at or before the version that was told.
"""

from collections.abc import Iterator

from verification.fact_index import REMEMBERED, ClientOperation, FactIndex, reported_state_of
from verification.facts import ClientCall, JournalEvent
from verification.responses import ReportedState
from verification.violations import Violation, ViolationKind

_SETTLED_AS = {"complete": "completed", "revert": "failed"}


def judge_writes(indexed: FactIndex) -> Iterator[Violation]:
    """All of rule 1, but for whether refusals were right."""
    for intent in indexed.intents.values():
        yield from _check_applied_once(intent)
        yield from _check_not_applied(intent)
        acknowledged = intent.acknowledged
        for attempt in acknowledged:
            yield from _judge_acknowledged(indexed, intent, attempt)
        if not acknowledged and intent.events:
            yield from _judge_unacknowledged(intent)
    yield from _check_unexpected(indexed)


def _check_applied_once(intent: ClientOperation) -> Iterator[Violation]:
    if len(intent.events) > 1:
        versions = sorted((event.wallet_id, event.version) for event in intent.events)
        yield _violation(ViolationKind.WRITE_APPLIED_TWICE, intent, f"at {versions}")


def _check_not_applied(intent: ClientOperation) -> Iterator[Violation]:
    """A first answer that is a replay: an earlier attempt was applied, whatever it was told."""
    decided = sorted(intent.decided, key=lambda attempt: attempt.ended)
    if not decided or not decided[0].replayed:
        return
    earlier = [one for one in intent.attempts if one.started < decided[0].ended]
    if all(one.outcome == "not_applied" for one in earlier if one is not decided[0]):
        told = sorted({one.code for one in earlier if one is not decided[0]})
        yield _violation(
            ViolationKind.UNAPPLIED_WRITE_APPLIED, intent, f"told {told}, then replayed"
        )


def _judge_acknowledged(
    indexed: FactIndex, intent: ClientOperation, attempt: ClientCall
) -> Iterator[Violation]:
    told = reported_state_of(attempt)
    if told is None:
        yield _violation(
            ViolationKind.ACKNOWLEDGED_WRITE_DIFFERS, intent, f"answer {attempt.body[:200]}"
        )
        return
    event = _event_of(indexed, intent, attempt, told)
    if event is None:
        yield _violation(
            ViolationKind.ACKNOWLEDGED_WRITE_MISSING,
            intent,
            f"told {told}, started {attempt.started}",
        )
        return
    difference = _difference(indexed, attempt, told, event)
    if difference:
        yield _violation(ViolationKind.ACKNOWLEDGED_WRITE_DIFFERS, intent, difference)


def _event_of(
    indexed: FactIndex, intent: ClientOperation, attempt: ClientCall, told: ReportedState
) -> JournalEvent | None:
    """The event that the acknowledgement speaks of."""
    if intent.events:
        return intent.events[0]
    if attempt.operation not in _SETTLED_AS:
        return None
    event = indexed.settlements.get(attempt.transfer_id)
    return event if event is not None and event.version <= told.version else None


def _difference(
    indexed: FactIndex, attempt: ClientCall, told: ReportedState, event: JournalEvent
) -> str:
    """What the acknowledgement got wrong; empty if nothing."""
    settles = attempt.operation in _SETTLED_AS
    told_event = indexed.at(told.wallet_id, told.version)
    if told_event is None or told_event.after != told.sums:
        return f"told {told}, journal at that version {told_event}"
    if settles and event.version > told.version:
        return f"told version {told.version} before its event {event.version}"
    if not settles and event.version != told.version:
        return f"told version {told.version}, event {event.version}"
    if attempt.operation == "create_wallet":
        return "" if event.type == "wallet.created" else f"event {event}"
    said = (told.wallet_id, told.transfer_id, told.type, told.status, told.amount)
    happened = (
        event.wallet_id,
        event.transfer_id,
        event.transfer_type,
        event.status,
        event.amount,
    )
    asked = _asked_status(attempt), attempt.amount or told.amount, attempt.wallet_id
    if asked != (told.status, told.amount, told.wallet_id):
        return f"asked {asked}, told {told}"
    return "" if said == happened else f"told {said}, event {happened}"


def _asked_status(attempt: ClientCall) -> str:
    settled = _SETTLED_AS.get(attempt.operation)
    return settled or ("pending" if attempt.pending else "completed")


def _judge_unacknowledged(intent: ClientOperation) -> Iterator[Violation]:
    """There is an event, though nobody was told of a success."""
    where = f"event at version {intent.events[0].version}"
    refused = [one for one in intent.attempts if one.outcome == "refused"]
    if any(one.code in REMEMBERED for one in refused):
        yield _violation(ViolationKind.REFUSED_WRITE_APPLIED, intent, where)
    elif all(one.outcome != "unknown" for one in intent.attempts):
        told = sorted({f"{one.outcome} {one.code}" for one in intent.attempts})
        breach = (
            ViolationKind.REFUSED_WRITE_APPLIED
            if refused
            else ViolationKind.UNAPPLIED_WRITE_APPLIED
        )
        yield _violation(breach, intent, f"{where}, told {told}")


def _check_unexpected(indexed: FactIndex) -> Iterator[Violation]:
    for event in indexed.evidence.journal:
        if event.reference_id not in indexed.intents:
            yield Violation(
                kind=ViolationKind.UNASKED_EVENT,
                wallet_id=event.wallet_id,
                detail=f"version={event.version} reference={event.reference_id!r}",
            )


def _violation(breach: ViolationKind, intent: ClientOperation, what: str) -> Violation:
    wallet_id = intent.first.wallet_id or (intent.events[0].wallet_id if intent.events else "")
    return Violation(
        kind=breach,
        wallet_id=wallet_id,
        detail=f"intent={intent.name} {intent.first.operation} {what}",
    )
