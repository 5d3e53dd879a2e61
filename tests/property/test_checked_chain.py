"""The checker's content and hash equal the service's, and it finds every damage of a chain."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given

from tests.property.test_chain import histories, without_chain
from tests.support.domain import WALLET_ID, make_transfer, transfer_id
from tests.support.writes import CommitRequestBuilder
from verification.chain import ChainReplay, ContentFacts, EventChain, Head, Rewound, content_of
from verification.cloud_events import decode_message
from verification.facts import Balances, Control, JournalEvent, Refunded
from verification.violations import ViolationKind
from wallet import chain as product
from wallet.event_codec import encode_event
from wallet.events import (
    Event,
    RecordedEvent,
    TransferChanged,
    WalletChanged,
    WalletCreated,
    WalletRewound,
)
from wallet.state import TransferStatus, Wallet

Row = tuple[JournalEvent, ContentFacts, EventChain]


def as_row(recorded: RecordedEvent) -> Row:
    """What the checker reads of a journal row."""
    wallet, event = recorded.wallet_after, recorded.event
    transfer = event.transfer if isinstance(event, TransferChanged) else None
    read = JournalEvent(
        wallet_id=wallet.id,
        version=wallet.version,
        type=event.type,
        after=Balances(
            balance=wallet.balance,
            pending_debit=wallet.pending_debit,
            pending_credit=wallet.pending_credit,
        ),
        transfer_id=transfer.id if transfer else "",
        transfer_type=transfer.type if transfer else "",
        previous_status=(event.previous or "") if isinstance(event, TransferChanged) else "",
        amount=transfer.amount if transfer else 0,
        failure_reason=(transfer.failure_reason or "") if transfer else "",
        expires_at=transfer.expiry.at if transfer and transfer.expiry else None,
        on_expiry=transfer.expiry.action if transfer and transfer.expiry else "",
        part=(transfer.part or 0) if transfer else 0,
        completed_before=event.completed_before if isinstance(event, TransferChanged) else 0,
        refunds=(transfer.refunds or "") if transfer else "",
        refunded=_refunded(event),
        control=_control(event, wallet),
    )
    changed = event if isinstance(event, WalletChanged) else None
    details = transfer or wallet
    facts = ContentFacts(
        occurred_at=event.occurred_at,
        created_at=transfer.created_at if transfer else None,
        reference_id=None if changed else details.reference_id,
        metadata=details.metadata,
        reason=changed.reason if changed else None,
        currency=wallet.currency,
        scale=wallet.scale,
        rewound=_rewound(event) if isinstance(event, WalletRewound) else None,
    )
    links = EventChain(
        hash=wallet.hash if recorded.previous_hash else b"",
        previous_hash=recorded.previous_hash,
        key_digest=recorded.key_digest,
    )
    return read, facts, links


def _refunded(event: Event) -> Refunded | None:
    if not isinstance(event, TransferChanged):
        return None
    counted = event.refunded or event.transfer.refunded
    return None if counted is None else Refunded(counted.completed, counted.pending)


def _control(event: Event, wallet: Wallet) -> Control | None:
    if not isinstance(event, WalletChanged | WalletCreated):
        return None
    return Control(
        status=wallet.status,
        frozen=wallet.frozen or "",
        frozen_reason=wallet.frozen_reason or "",
        overdraft_limit=wallet.overdraft_limit,
    )


def _rewound(event: WalletRewound) -> Rewound:
    return Rewound(event.common_version, event.common_hash.hex(), event.lost)


def kinds(rows: list[Row], head: Head | None = None) -> list[ViolationKind]:
    replay = ChainReplay(WALLET_ID, {ViolationKind.WALLET_HASH_WRONG: head})
    found = [violation.kind for row in rows for violation in replay.add(*row)]
    return [*found, *(violation.kind for violation in replay.end())]


def head_of(history: list[RecordedEvent]) -> Head:
    wallet = history[-1].wallet_after
    return Head(wallet.version, wallet.hash)


@given(histories())
def test_the_checker_computes_the_same_content_and_hashes(history: list[RecordedEvent]) -> None:
    rows = [as_row(recorded) for recorded in history]
    for recorded, row in zip(history, rows, strict=True):
        assert content_of(*row) == product.content_of(recorded)
        message = decode_message(1, recorded.id, "s", encode_event(recorded))
        assert message.content == product.content_of(recorded)
    assert kinds(rows, head_of(history)) == []


@given(histories())
def test_events_from_before_the_chain_are_covered_by_the_head(
    history: list[RecordedEvent],
) -> None:
    old = len(history) // 2
    hashes = [product.GENESIS]
    for recorded in history[:old]:
        content = product.content_of(without_chain(recorded))
        hashes.append(product.link(hashes[-1], content))
    rows = [as_row(without_chain(recorded)) for recorded in history[:old]]
    assert kinds(rows, Head(old, hashes[-1]) if old else None) == []


def make_rows() -> list[Row]:
    builder = CommitRequestBuilder()
    builder.create(WALLET_ID, reference_id="shop", tier="gold")
    for number in range(4):
        done = make_transfer(
            id=transfer_id(number),
            status=TransferStatus.COMPLETED,
            amount=100 + number,
            reference_id=f"r{number}",
        )
        builder.transfer(WALLET_ID, done)
    return [as_row(recorded) for recorded in builder.write.events]


def changed(rows: list[Row], at: int, part: int, **fields: object) -> list[Row]:
    row = list(rows[at])
    row[part] = msgspec.structs.replace(row[part], **fields)
    return [*rows[:at], (row[0], row[1], row[2]), *rows[at + 1 :]]  # type: ignore[list-item]  # its parts


BROKEN, WRONG = ViolationKind.CHAIN_BROKEN, ViolationKind.EVENT_HASH_WRONG

DAMAGES: dict[str, tuple[Callable[[list[Row]], list[Row]], set[ViolationKind]]] = {
    "amount": (lambda rows: changed(rows, 2, 0, amount=999), {WRONG}),
    "balance": (lambda rows: changed(rows, 2, 0, after=Balances(balance=1)), {WRONG}),
    "reference": (lambda rows: changed(rows, 2, 1, reference_id=None), {WRONG}),
    "metadata": (lambda rows: changed(rows, 0, 1, metadata={"tier": "free"}), {WRONG}),
    "currency": (lambda rows: changed(rows, 0, 1, currency="EUR"), {WRONG}),
    "key": (lambda rows: changed(rows, 3, 2, key_digest=bytes(32)), {WRONG}),
    "hash": (lambda rows: changed(rows, 2, 2, hash=bytes(16)), {WRONG, BROKEN}),
    "previous": (lambda rows: changed(rows, 2, 2, previous_hash=bytes(16)), {WRONG, BROKEN}),
    "no hash": (lambda rows: changed(rows, 2, 2, hash=b"", previous_hash=b""), set()),
    "removed": (lambda rows: [*rows[:2], *rows[3:]], {BROKEN}),
    "reordered": (lambda rows: [*rows[:2], rows[3], rows[2], rows[4]], {BROKEN}),
    "cut off": (lambda rows: rows[:4], {ViolationKind.WALLET_HASH_WRONG}),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_of_a_chain_is_found(name: str) -> None:
    rows = make_rows()
    head = Head(5, rows[-1][2].hash)
    assert kinds(rows, head) == []
    damage, expected = DAMAGES[name]
    assert set(kinds(damage(rows), head)) == expected
