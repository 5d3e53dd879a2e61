"""The checker: evidence in, violations out. Pure."""

from collections.abc import Iterator

from verification.fact_index import FactIndex
from verification.facts import Facts
from verification.idempotency_rules import judge_keys
from verification.journal_rules import TransferLifecycles, WalletReplay
from verification.projection_rules import judge_transfer_projections, judge_wallet_projections
from verification.real_time_rules import VersionLowerBounds, judge_order
from verification.refusal_rules import judge_refusals
from verification.row_rules import (
    judge_conservation,
    judge_outbox,
    judge_transfer_rows,
    judge_wallet_rows,
)
from verification.stream_rules import judge_stream
from verification.violations import Violation
from verification.write_rules import judge_writes


def check(evidence: Facts) -> list[Violation]:
    """Every violation of the six rules in ``evidence``, which is of a service at rest."""
    indexed = FactIndex(evidence)
    violations = [*_judge_journal(indexed), *_judge_rows(indexed)]
    if evidence.history is not None:
        violations += judge_history(indexed)
    if evidence.stream is not None:
        violations += judge_stream(indexed.by_version, evidence.stream)
    if evidence.wallet_projections is not None:
        violations += judge_wallet_projections(evidence.wallets, evidence.wallet_projections)
    if evidence.transfer_projections is not None:
        violations += judge_transfer_projections(evidence.transfers, evidence.transfer_projections)
    return violations


def judge_history(indexed: FactIndex) -> Iterator[Violation]:
    """The rules about what clients were told: 1, 3 and 4."""
    floors = VersionLowerBounds(indexed)
    yield from judge_writes(indexed)
    yield from judge_refusals(indexed, floors)
    yield from judge_order(indexed, floors)
    yield from judge_keys(indexed)


def _judge_journal(indexed: FactIndex) -> Iterator[Violation]:
    for wallet_id, events in indexed.journals.items():
        fold = WalletReplay(wallet_id, indexed.limits.get(wallet_id, 0))
        lives = TransferLifecycles(wallet_id)
        for event in events:
            yield from fold.add(event)
            yield from lives.add(event)


def _judge_rows(indexed: FactIndex) -> Iterator[Violation]:
    evidence = indexed.evidence
    yield from judge_wallet_rows(indexed.journals, evidence.wallets)
    yield from judge_transfer_rows(indexed.journals, evidence.transfers)
    yield from judge_conservation(evidence.wallets, evidence.transfers)
    if evidence.outbox is not None:
        yield from judge_outbox(indexed.journals, evidence.outbox)
