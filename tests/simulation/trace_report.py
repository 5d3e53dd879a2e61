"""Formats a run for reading: requests and responses in order, and the violations."""

from collections.abc import Iterator

from tests.simulation.scenario import Outcome
from verification.facts import ClientCall


def format_history(outcome: Outcome) -> Iterator[str]:
    yield f"seed {outcome.seed}: faults {', '.join(outcome.faults_done) or 'none'}"
    for attempt in sorted(outcome.evidence.history or (), key=lambda one: one.started):
        yield _line(attempt)
    for event in outcome.evidence.journal:
        sums = event.after
        yield (
            f"journal {event.wallet_id[:8]} v{event.version} {event.type} "
            f"{event.transfer_type} {event.amount or ''} {event.transfer_id[:8]} "
            f"by {event.reference_id}: {sums.balance}/{sums.pending_debit}/{sums.pending_credit}"
        )
    for message in outcome.evidence.stream or ():
        yield f"stream {message.sequence} {message.event.wallet_id[:8]} v{message.event.version}"
    yield f"digest {outcome.digest}, {outcome.steps} steps"
    for violation in outcome.violations:
        yield f"VIOLATION {violation}"
    for failure in outcome.failures:
        yield f"FAILURE {failure}"
    yield "ok" if outcome.ok else "not ok"


def _line(attempt: ClientCall) -> str:
    what = f"{attempt.operation} {attempt.amount or ''} {attempt.transfer_id[:8]}".strip()
    pending = " pending" if attempt.pending else ""
    key = f" key={attempt.key}" if attempt.key else ""
    replayed = " replayed" if attempt.replayed else ""
    version = f" v{attempt.version}" if attempt.version else ""
    reported = f" ({attempt.body})" if attempt.body and not attempt.status else ""
    return (
        f"{attempt.started:>5}-{attempt.ended:<5} {attempt.operation_id} {attempt.wallet_id[:8]} "
        f"{what}{pending}{key} -> {attempt.outcome} {attempt.code}{version}{replayed}{reported}"
    )
