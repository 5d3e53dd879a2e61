"""Rule 4: one idempotency key, one request, one response."""

from collections import defaultdict
from collections.abc import Iterator

from verification.chain import key_digest
from verification.fact_index import ClientOperation, FactIndex
from verification.facts import ClientCall, KeyRow
from verification.violations import Violation, ViolationKind

Scope = tuple[str, str]
"""Wallet (empty for wallet creations, whose scope is the service) and idempotency key."""


def check_keys(index: FactIndex) -> Iterator[Violation]:
    """All of rule 4."""
    operations = _operations_by_key(index)
    for scope, sharing in operations.items():
        yield from _check_reuse(scope, sharing)
        for operation in sharing:
            yield from _check_answers(scope, operation)
    if index.facts.keys is not None:
        yield from _check_rows(index, operations)


def _operations_by_key(index: FactIndex) -> dict[Scope, list[ClientOperation]]:
    operations: defaultdict[Scope, list[ClientOperation]] = defaultdict(list)
    for operation in index.operations.values():
        if operation.first.key:
            operations[_scope_of(operation.first)].append(operation)
    return dict(operations)


def _scope_of(call: ClientCall) -> Scope:
    return call.wallet_id, call.key


def _check_reuse(scope: Scope, sharing: list[ClientOperation]) -> Iterator[Violation]:
    """Of several requests under one key at most one was decided."""
    decided = [operation.name for operation in sharing if operation.decided]
    applied = [operation.name for operation in sharing if operation.events]
    if len(decided) > 1 or len(applied) > 1 or len({*decided, *applied}) > 1:
        yield _violation(
            ViolationKind.KEY_REUSE_ACCEPTED, scope, f"decided {decided}, applied {applied}"
        )


def _check_answers(scope: Scope, operation: ClientOperation) -> Iterator[Violation]:
    """Every retry has the same status and body, and is marked as a replay."""
    decided = sorted(operation.decided, key=lambda call: call.ended)
    for call in decided[1:]:
        if (call.status, call.body) != (decided[0].status, decided[0].body):
            yield _violation(
                ViolationKind.REPLAY_DIFFERS,
                scope,
                f"{decided[0].status} {decided[0].body[:300]}, "
                f"then {call.status} {call.body[:300]}",
            )
        if call.started > decided[0].ended and not call.replayed:
            yield _violation(
                ViolationKind.REPLAY_NOT_MARKED, scope, f"operation_id={operation.name}"
            )


def _check_rows(
    index: FactIndex, operations: dict[Scope, list[ClientOperation]]
) -> Iterator[Violation]:
    rows = {(row.wallet_id, row.key): row for row in index.facts.keys or ()}
    # Only the service knows the scope of a wallet creation: the key is enough to find the row.
    creations = {row.key: row for row in rows.values() if row.wallet_id not in index.journals}
    for scope, sharing in operations.items():
        row = rows.get(scope) if scope[0] else creations.get(scope[1])
        if row is None and _is_recovered(index.facts.recovered_keys, scope):
            continue
        for operation in sharing:
            yield from _check_row(scope, operation, row)
    for row in rows.values():
        events = index.journals.get(row.wallet_id)
        if events is not None and row.version > events[-1].version:
            yield _violation(
                ViolationKind.KEY_ROW_WITHOUT_EVENT,
                (row.wallet_id, row.key),
                f"version {row.version}",
            )


def _is_recovered(recovered: frozenset[bytes], scope: Scope) -> bool:
    """Whether the key's row was lost and its event applied again. Without the scope of a wallet
    creation nobody can tell."""
    return bool(recovered) and (not scope[0] or key_digest(*scope) in recovered)


def _check_row(scope: Scope, operation: ClientOperation, row: KeyRow | None) -> Iterator[Violation]:
    for call in operation.decided[:1]:
        if row is None:
            yield _violation(ViolationKind.KEY_ROW_MISSING, scope, f"operation_id={operation.name}")
            return
        refused = call.outcome == "refused"
        if row.refused != refused or (not refused and row.answer != call.body):
            yield _violation(
                ViolationKind.KEY_ROW_DIFFERS,
                scope,
                f"reported {call.body[:300]}, row {row.answer[:300]}",
            )


def _violation(kind: ViolationKind, scope: Scope, what: str) -> Violation:
    return Violation(kind=kind, wallet_id=scope[0], detail=f"key={scope[1]} {what}")
