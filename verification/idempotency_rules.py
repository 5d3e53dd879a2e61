"""Rule 4: one key, one request, one answer."""

from collections import defaultdict
from collections.abc import Iterator

from verification.fact_index import ClientOperation, FactIndex
from verification.facts import ClientCall, KeyRow
from verification.violations import Violation, ViolationKind

Scope = tuple[str, str]
"""Wallet (empty for creations, whose scope is the service) and key."""


def judge_keys(indexed: FactIndex) -> Iterator[Violation]:
    """All of rule 4."""
    intents = _intents_by_key(indexed)
    for scope, sharing in intents.items():
        yield from _check_reuse(scope, sharing)
        for intent in sharing:
            yield from _judge_answers(scope, intent)
    if indexed.evidence.keys is not None:
        yield from _judge_rows(indexed, intents)


def _intents_by_key(indexed: FactIndex) -> dict[Scope, list[ClientOperation]]:
    intents: defaultdict[Scope, list[ClientOperation]] = defaultdict(list)
    for intent in indexed.intents.values():
        if intent.first.key:
            intents[_scope_of(intent.first)].append(intent)
    return dict(intents)


def _scope_of(attempt: ClientCall) -> Scope:
    return attempt.wallet_id, attempt.key


def _check_reuse(scope: Scope, sharing: list[ClientOperation]) -> Iterator[Violation]:
    """Several requests under one key: at most one of them was decided."""
    decided = [intent.name for intent in sharing if intent.decided]
    applied = [intent.name for intent in sharing if intent.events]
    if len(decided) > 1 or len(applied) > 1 or len({*decided, *applied}) > 1:
        yield _violation(
            ViolationKind.KEY_REUSE_ACCEPTED, scope, f"decided {decided}, applied {applied}"
        )


def _judge_answers(scope: Scope, intent: ClientOperation) -> Iterator[Violation]:
    """The same status and body each time, and every repetition marked as one."""
    decided = sorted(intent.decided, key=lambda attempt: attempt.ended)
    for attempt in decided[1:]:
        if (attempt.status, attempt.body) != (decided[0].status, decided[0].body):
            yield _violation(
                ViolationKind.REPLAY_DIFFERS,
                scope,
                f"{decided[0].status} {decided[0].body[:300]}, "
                f"then {attempt.status} {attempt.body[:300]}",
            )
        if attempt.started > decided[0].ended and not attempt.replayed:
            yield _violation(ViolationKind.REPLAY_NOT_MARKED, scope, f"intent={intent.name}")


def _judge_rows(
    indexed: FactIndex, intents: dict[Scope, list[ClientOperation]]
) -> Iterator[Violation]:
    rows = {(row.wallet_id, row.key): row for row in indexed.evidence.keys or ()}
    # The scope of a creation is the service's own matter: its key is enough to find the row.
    creations = {row.key: row for row in rows.values() if row.wallet_id not in indexed.journals}
    for scope, sharing in intents.items():
        row = rows.get(scope) if scope[0] else creations.get(scope[1])
        for intent in sharing:
            yield from _judge_row(scope, intent, row)
    for row in rows.values():
        events = indexed.journals.get(row.wallet_id)
        if events is not None and row.version > events[-1].version:
            yield _violation(
                ViolationKind.KEY_ROW_WITHOUT_EVENT,
                (row.wallet_id, row.key),
                f"version {row.version}",
            )


def _judge_row(scope: Scope, intent: ClientOperation, row: KeyRow | None) -> Iterator[Violation]:
    for attempt in intent.decided[:1]:
        if row is None:
            yield _violation(ViolationKind.KEY_ROW_MISSING, scope, f"intent={intent.name}")
            return
        refused = attempt.outcome == "refused"
        if row.refused != refused or (not refused and row.answer != attempt.body):
            yield _violation(
                ViolationKind.KEY_ROW_DIFFERS,
                scope,
                f"told {attempt.body[:300]}, row {row.answer[:300]}",
            )


def _violation(breach: ViolationKind, scope: Scope, what: str) -> Violation:
    return Violation(kind=breach, wallet_id=scope[0], detail=f"key={scope[1]} {what}")
