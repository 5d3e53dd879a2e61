"""Rule 1: every acknowledged write is in the journal exactly once, every refused one is not, and
every write with an unknown outcome at most once.

A settlement whose transfer is already settled that way is acknowledged without an event of its own:
then the transfer's event must exist, at or before the reported version.
"""

from collections.abc import Iterator

from verification.fact_index import STORED_UNDER_KEY, ClientOperation, FactIndex, reported_state_of
from verification.facts import ClientCall, Control, JournalEvent
from verification.responses import ReportedState
from verification.violations import Violation, ViolationKind

_SETTLED_AS = {"complete": "completed", "revert": "failed"}
_CONTROL = frozenset({"update", "freeze", "unfreeze", "close"})


def check_writes(index: FactIndex) -> Iterator[Violation]:
    """All of rule 1, except whether refusals were correct."""
    for operation in index.operations.values():
        yield from _check_applied_once(operation)
        yield from _check_not_applied(operation)
        acknowledged = operation.acknowledged
        for call in acknowledged:
            yield from _check_acknowledged(index, operation, call)
        if not acknowledged and operation.events:
            yield from _check_unacknowledged(operation)
    yield from _check_unexpected(index)


def _check_applied_once(operation: ClientOperation) -> Iterator[Violation]:
    if len(operation.events) > 1:
        versions = sorted((event.wallet_id, event.version) for event in operation.events)
        yield _violation(ViolationKind.WRITE_APPLIED_TWICE, operation, f"at {versions}")


def _check_not_applied(operation: ClientOperation) -> Iterator[Violation]:
    """If the first response is a replay, an earlier call was applied, whatever it reported."""
    decided = sorted(operation.decided, key=lambda call: call.ended)
    if not decided or not decided[0].replayed:
        return
    earlier = [one for one in operation.calls if one.started < decided[0].ended]
    if all(one.outcome == "not_applied" for one in earlier if one is not decided[0]):
        reported = sorted({one.code for one in earlier if one is not decided[0]})
        yield _violation(
            ViolationKind.UNAPPLIED_WRITE_APPLIED, operation, f"reported {reported}, then replayed"
        )


def _check_acknowledged(
    index: FactIndex, operation: ClientOperation, call: ClientCall
) -> Iterator[Violation]:
    reported = reported_state_of(call)
    if reported is None:
        yield _violation(
            ViolationKind.ACKNOWLEDGED_WRITE_DIFFERS, operation, f"response {call.body[:200]}"
        )
        return
    event = _event_of(index, operation, call, reported)
    if event is None:
        yield _violation(
            ViolationKind.ACKNOWLEDGED_WRITE_MISSING,
            operation,
            f"reported {reported}, started {call.started}",
        )
        return
    difference = _difference(index, call, reported, event)
    if difference:
        yield _violation(ViolationKind.ACKNOWLEDGED_WRITE_DIFFERS, operation, difference)


def _event_of(
    index: FactIndex, operation: ClientOperation, call: ClientCall, reported: ReportedState
) -> JournalEvent | None:
    """The event that the acknowledgement refers to."""
    if operation.events:
        return operation.events[0]
    if call.operation in _CONTROL:
        # It changed nothing: the wallet was like that already.
        return index.at(reported.wallet_id, reported.version)
    if call.operation not in _SETTLED_AS:
        return None
    event = index.settlements.get(call.transfer_id)
    return event if event is not None and event.version <= reported.version else None


def _difference(
    index: FactIndex, call: ClientCall, reported: ReportedState, event: JournalEvent
) -> str:
    """How the acknowledgement differs from the journal; empty if it doesn't."""
    settles = call.operation in _SETTLED_AS
    reported_event = index.at(reported.wallet_id, reported.version)
    if reported_event is None or reported_event.after != reported.balances:
        return f"reported {reported}, journal at that version {reported_event}"
    if settles and event.version > reported.version:
        return f"reported version {reported.version} before its event {event.version}"
    if not settles and event.version != reported.version:
        return f"reported version {reported.version}, event {event.version}"
    if call.operation == "create_wallet":
        return "" if event.type == "wallet.created" else f"event {event}"
    if call.operation in _CONTROL:
        control = index.control_at(reported.wallet_id, reported.version)
        return "" if _is_as_asked(call, control) else f"requested {call}, control {control}"
    reported_transfer = (
        reported.wallet_id,
        reported.transfer_id,
        reported.type,
        reported.status,
        reported.amount,
        reported.part,
        reported.refunds,
    )
    event_transfer = (
        event.wallet_id,
        event.transfer_id,
        event.transfer_type,
        event.status,
        event.amount,
        event.part,
        event.refunds,
    )
    if reported_transfer != event_transfer:
        return f"reported {reported_transfer}, event {event_transfer}"
    if settles:
        return "" if _is_settled_as_asked(call, reported, event) else f"requested {call}"
    refunds = call.transfer_id if call.operation == "refund" else ""
    requested = _requested_status(call), call.amount or reported.amount, call.wallet_id, refunds
    if requested != (reported.status, reported.amount, reported.wallet_id, reported.refunds):
        return f"requested {requested}, reported {reported}"
    return ""


def _is_settled_as_asked(call: ClientCall, reported: ReportedState, event: JournalEvent) -> bool:
    """Whether ``event`` settled what ``call`` asked for."""
    if reported.wallet_id != call.wallet_id:
        return False
    if call.operation == "revert":
        return reported.status == "failed"
    done = event.completed - event.completed_before
    left = event.amount - event.completed_before
    # A repetition asks for what is completed in all.
    if (call.amount or left) != done and (call.amount or event.amount) != event.completed:
        return False
    goes_on = not call.final and done < left
    return reported.status == ("pending" if goes_on else "completed")


def _is_as_asked(call: ClientCall, control: Control) -> bool:
    """Whether ``control`` is what a client asked for."""
    if call.operation == "update":
        return control.overdraft_limit == call.amount
    status = {"freeze": "frozen", "unfreeze": "active", "close": "closed"}[call.operation]
    return (control.status, control.frozen) == (status, call.direction)


def _requested_status(call: ClientCall) -> str:
    settled = _SETTLED_AS.get(call.operation)
    return settled or ("pending" if call.pending else "completed")


def _check_unacknowledged(operation: ClientOperation) -> Iterator[Violation]:
    """An event exists, though no call returned success."""
    where = f"event at version {operation.events[0].version}"
    refused = [one for one in operation.calls if one.outcome == "refused"]
    if any(one.code in STORED_UNDER_KEY for one in refused):
        yield _violation(ViolationKind.REFUSED_WRITE_APPLIED, operation, where)
    elif all(one.outcome != "unknown" for one in operation.calls):
        reported = sorted({f"{one.outcome} {one.code}" for one in operation.calls})
        kind = (
            ViolationKind.REFUSED_WRITE_APPLIED
            if refused
            else ViolationKind.UNAPPLIED_WRITE_APPLIED
        )
        yield _violation(kind, operation, f"{where}, reported {reported}")


def _check_unexpected(index: FactIndex) -> Iterator[Violation]:
    for event in index.facts.journal:
        # A recovery is asked for by an operator.
        asked = event.reference_id or event.reason
        if event.is_expiry:
            continue
        if asked not in index.operations and event.type != "wallet.rewound":
            yield Violation(
                kind=ViolationKind.UNASKED_EVENT,
                wallet_id=event.wallet_id,
                detail=f"version={event.version} reference={event.reference_id!r}",
            )


def _violation(kind: ViolationKind, operation: ClientOperation, what: str) -> Violation:
    wallet_id = operation.first.wallet_id
    if not wallet_id and operation.events:
        wallet_id = operation.events[0].wallet_id
    return Violation(
        kind=kind,
        wallet_id=wallet_id,
        detail=f"operation_id={operation.name} {operation.first.operation} {what}",
    )
