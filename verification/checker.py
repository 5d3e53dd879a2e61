"""The checker: facts in, violations out. Pure."""

from collections.abc import Iterator, Sequence

from verification.expiry_rules import check_expiry_rows
from verification.fact_index import FactIndex
from verification.facts import Facts, JournalEvent
from verification.idempotency_rules import check_keys
from verification.journal_rules import TransferLifecycles, WalletReplay
from verification.projection_rules import check_transfer_projections, check_wallet_projections
from verification.real_time_rules import VersionLowerBounds, check_order
from verification.refund_rules import check_refunds
from verification.refusal_rules import check_refusals
from verification.row_rules import (
    check_conservation,
    check_outbox,
    check_transfer_rows,
    check_wallet_rows,
)
from verification.stream_rules import check_stream_messages
from verification.violations import Violation
from verification.write_rules import check_writes


def check(facts: Facts) -> list[Violation]:
    """Every violation of the six rules in ``facts``, taken from an idle service."""
    index = FactIndex(facts)
    violations = [*_check_journal(index), *_check_rows(index)]
    if facts.history is not None:
        violations += check_client_history(index)
    if facts.stream is not None:
        violations += check_stream_messages(index.by_version, facts.stream)
    if facts.wallet_projections is not None:
        violations += check_wallet_projections(facts.wallets, facts.wallet_projections)
    if facts.transfer_projections is not None:
        violations += check_transfer_projections(facts.transfers, facts.transfer_projections)
    return violations


def check_client_history(index: FactIndex) -> Iterator[Violation]:
    """The rules about responses to clients: 1, 3 and 4."""
    lower_bounds = VersionLowerBounds(index)
    yield from check_writes(index)
    yield from check_refusals(index, lower_bounds)
    yield from check_order(index, lower_bounds)
    yield from check_keys(index)


def _check_journal(index: FactIndex) -> Iterator[Violation]:
    for wallet_id, events in index.journals.items():
        replay = WalletReplay(wallet_id)
        was_rewound = any(event.type == "wallet.rewound" for event in events)
        lifecycles = TransferLifecycles(wallet_id, was_rewound=was_rewound)
        for event in events:
            yield from replay.add(event)
            yield from lifecycles.add(event)
        yield from _check_refunds(events)


def _check_refunds(events: Sequence[JournalEvent]) -> Iterator[Violation]:
    """Of one wallet."""
    refunds: dict[str, list[JournalEvent]] = {}
    own: dict[str, list[JournalEvent]] = {}
    for event in events:
        if event.refunds:
            refunds.setdefault(event.refunds, []).append(event)
        own.setdefault(event.transfer_id, []).append(event)
    counted = {one.transfer_id for one in events if one.refunded and not one.refunds}
    for transfer_id in sorted(refunds.keys() | counted):
        yield from check_refunds(own.get(transfer_id, []), refunds.get(transfer_id, []))


def _check_rows(index: FactIndex) -> Iterator[Violation]:
    facts = index.facts
    yield from check_wallet_rows(index.journals, facts.wallets)
    yield from check_transfer_rows(index.journals, facts.transfers)
    yield from check_conservation(facts.wallets, facts.transfers)
    if facts.expiries is not None:
        yield from check_expiry_rows(facts.transfers, facts.expiries)
    if facts.outbox is not None:
        yield from check_outbox(index.journals, facts.outbox)
