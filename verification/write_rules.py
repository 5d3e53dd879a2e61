"""Rule 1: every acknowledged write is in the journal exactly once, every refused one is not, and
every unknown one at most once, with a retry that learned which.

A settlement that finds its transfer settled that way already is acknowledged without an event of
its own: then the transfer's event must be there, at or before the version that was told.
"""

from collections.abc import Iterator

from verification.answers import Told
from verification.evidence import Attempt, JournalEvent
from verification.indexed import REMEMBERED, Indexed, Intent, told_by
from verification.violations import Breach, Violation

_SETTLED_AS = {"complete": "completed", "revert": "failed"}


def judge_writes(indexed: Indexed) -> Iterator[Violation]:
    """All of rule 1, but for whether refusals were right."""
    for intent in indexed.intents.values():
        yield from _judge_times(intent)
        yield from _judge_denials(intent)
        acknowledged = intent.acknowledged
        for attempt in acknowledged:
            yield from _judge_acknowledged(indexed, intent, attempt)
        if not acknowledged and intent.events:
            yield from _judge_unacknowledged(intent)
    yield from _judge_unasked(indexed)


def _judge_times(intent: Intent) -> Iterator[Violation]:
    if len(intent.events) > 1:
        versions = sorted((event.wallet_id, event.version) for event in intent.events)
        yield _violation(Breach.WRITE_APPLIED_TWICE, intent, f"at {versions}")


def _judge_denials(intent: Intent) -> Iterator[Violation]:
    """A first answer that is a replay: an earlier attempt was applied, whatever it was told."""
    decided = sorted(intent.decided, key=lambda attempt: attempt.ended)
    if not decided or not decided[0].replayed:
        return
    earlier = [one for one in intent.attempts if one.started < decided[0].ended]
    if all(one.outcome == "not_applied" for one in earlier if one is not decided[0]):
        told = sorted({one.code for one in earlier if one is not decided[0]})
        yield _violation(Breach.UNAPPLIED_WRITE_APPLIED, intent, f"told {told}, then replayed")


def _judge_acknowledged(indexed: Indexed, intent: Intent, attempt: Attempt) -> Iterator[Violation]:
    told = told_by(attempt)
    if told is None:
        yield _violation(Breach.ACKNOWLEDGED_WRITE_DIFFERS, intent, f"answer {attempt.body[:200]}")
        return
    event = _event_of(indexed, intent, attempt, told)
    if event is None:
        yield _violation(
            Breach.ACKNOWLEDGED_WRITE_MISSING, intent, f"told {told}, started {attempt.started}"
        )
        return
    difference = _difference(indexed, attempt, told, event)
    if difference:
        yield _violation(Breach.ACKNOWLEDGED_WRITE_DIFFERS, intent, difference)


def _event_of(
    indexed: Indexed, intent: Intent, attempt: Attempt, told: Told
) -> JournalEvent | None:
    """The event that the acknowledgement speaks of."""
    if intent.events:
        return intent.events[0]
    if attempt.operation not in _SETTLED_AS:
        return None
    event = indexed.finals.get(attempt.transfer_id)
    return event if event is not None and event.version <= told.version else None


def _difference(indexed: Indexed, attempt: Attempt, told: Told, event: JournalEvent) -> str:
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


def _asked_status(attempt: Attempt) -> str:
    settled = _SETTLED_AS.get(attempt.operation)
    return settled or ("pending" if attempt.pending else "completed")


def _judge_unacknowledged(intent: Intent) -> Iterator[Violation]:
    """There is an event, though nobody was told of a success."""
    where = f"event at version {intent.events[0].version}"
    refused = [one for one in intent.attempts if one.outcome == "refused"]
    if any(one.code in REMEMBERED for one in refused):
        yield _violation(Breach.REFUSED_WRITE_APPLIED, intent, where)
    elif all(one.outcome != "unknown" for one in intent.attempts):
        told = sorted({f"{one.outcome} {one.code}" for one in intent.attempts})
        breach = Breach.REFUSED_WRITE_APPLIED if refused else Breach.UNAPPLIED_WRITE_APPLIED
        yield _violation(breach, intent, f"{where}, told {told}")


def _judge_unasked(indexed: Indexed) -> Iterator[Violation]:
    for event in indexed.evidence.journal:
        if event.reference_id not in indexed.intents:
            yield Violation(
                breach=Breach.UNASKED_EVENT,
                wallet_id=event.wallet_id,
                detail=f"version={event.version} reference={event.reference_id!r}",
            )


def _violation(breach: Breach, intent: Intent, what: str) -> Violation:
    wallet_id = intent.first.wallet_id or (intent.events[0].wallet_id if intent.events else "")
    return Violation(
        breach=breach,
        wallet_id=wallet_id,
        detail=f"intent={intent.name} {intent.first.operation} {what}",
    )
