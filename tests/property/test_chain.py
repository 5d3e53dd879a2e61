"""For all events: journal row, event and stream message have the same content (INV-13)."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from actors.journal.postgres_columns import event_row, hold_columns, refund_columns
from actors.journal.postgres_rows import recorded_event_from_row
from tests.support.domain import NOW, WALLET_ID, transfer_id
from wallet.chain import GENESIS, content_of, link, record
from wallet.commands import (
    CloseWallet,
    ControlWallet,
    FreezeWallet,
    UnfreezeWallet,
    UpdateWallet,
)
from wallet.control_rules import decide_control
from wallet.event_codec import content_of_event, decode_envelope, encode_event
from wallet.events import (
    RecordedEvent,
    TransferChanged,
    WalletChanged,
    WalletCreated,
    WalletRewound,
)
from wallet.fold import count_refund
from wallet.representation import encode_first_body
from wallet.state import (
    Expiry,
    FailureReason,
    OnExpiry,
    Transfer,
    TransferStatus,
    TransferType,
    Wallet,
    WalletStatus,
)

PENDING, COMPLETED, FAILED = TransferStatus

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
references = st.one_of(st.none(), texts)
metadata = st.dictionaries(texts, texts, max_size=3)
digests = st.sampled_from([b"", bytes(range(32))])
makers = st.sampled_from([None, "key-1"])
moments = st.datetimes(
    min_value=datetime(2020, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)
)
amounts = st.integers(1, 10**30)
expiries = st.none() | st.builds(Expiry, moments, st.sampled_from(OnExpiry))
reasons = st.none() | texts.filter(bool)
controls: st.SearchStrategy[ControlWallet] = st.one_of(
    st.builds(
        UpdateWallet, metadata=metadata, overdraft_limit=st.sampled_from([None, "0", "1", "900"])
    ),
    st.builds(FreezeWallet, direction=st.sampled_from(["both", "debit", "credit"]), reason=reasons),
    st.builds(UnfreezeWallet, reason=reasons),
    st.builds(CloseWallet, reason=reasons),
)


@st.composite
def histories(draw: st.DrawFn) -> list[RecordedEvent]:
    """A wallet's events: its creation, transfers of which some are settled, and its control."""
    at = draw(moments)
    creation = WalletCreated(
        wallet_id=WALLET_ID,
        currency="USD",
        scale=draw(st.sampled_from([0, 2, 18])),
        reference_id=draw(references),
        metadata=draw(metadata),
        overdraft_limit=draw(st.sampled_from([0, 0, 1, 10**37])),
        occurred_at=at,
    )
    history = [record(None, creation, made_by=draw(makers), key_digest=draw(digests))]
    for number in range(draw(st.integers(0, 3))):
        at += timedelta(microseconds=draw(st.integers(0, 10**9)))
        wallet = history[-1].wallet_after
        held = draw(st.booleans())
        transfer = Transfer(
            id=transfer_id(number),
            type=TransferType.DEBIT,
            status=PENDING if held else COMPLETED,
            amount=draw(amounts),
            created_version=wallet.version + 1,
            created_at=at,
            reference_id=draw(references),
            metadata=draw(metadata),
            settled_at=None if held else at,
            expiry=draw(expiries) if held else None,
        )
        history.append(_recorded(draw, wallet, transfer, None, at))
        if held and draw(st.booleans()):
            at += timedelta(microseconds=draw(st.integers(0, 10**9)))
            history.append(_settled(draw, history[-1].wallet_after, transfer, at))
            while (settled := _transfer_of(history[-1])).status is PENDING:
                history.append(_settled(draw, history[-1].wallet_after, settled, at))
        history += _refunded(draw, history, 100 + number, at)
        history += _controlled(draw, history[-1].wallet_after, at)
        if history[-1].wallet_after.status is WalletStatus.CLOSED:
            break
    if draw(st.booleans()):
        history.append(_rewound(draw, history[-1].wallet_after, at))
    return history


def _refunded(
    draw: st.DrawFn, history: list[RecordedEvent], number: int, at: datetime
) -> list[RecordedEvent]:
    """A refund of the last transfer, sometimes with its end; and after that, sometimes, the end of
    the transfer, if it was completed in part only."""
    wallet, original = history[-1].wallet_after, _transfer_of(history[-1])
    if original.refundable_amount == 0 or wallet.balance <= 0 or not draw(st.booleans()):
        return []
    held = draw(st.booleans())
    refund = Transfer(
        id=transfer_id(number),
        type=TransferType.CREDIT,
        status=PENDING if held else COMPLETED,
        amount=draw(st.integers(1, min(original.refundable_amount, wallet.balance))),
        created_version=wallet.version + 1,
        created_at=at,
        settled_at=None if held else at,
        refunds=original.id,
    )
    made = TransferChanged(transfer=refund, previous=None, occurred_at=at)
    counted = count_refund(original, made)
    events = [record(wallet, counted, key_digest=draw(digests))]
    original = msgspec.structs.replace(original, refunded=counted.refunded)
    if held and draw(st.booleans()):
        end = msgspec.structs.replace(refund, status=COMPLETED, settled_at=at)
        ended = TransferChanged(transfer=end, previous=PENDING, occurred_at=at)
        counted = count_refund(original, ended)
        events.append(record(events[-1].wallet_after, counted))
        original = msgspec.structs.replace(original, refunded=counted.refunded)
    if original.status is PENDING and draw(st.booleans()):
        events.append(_settled(draw, events[-1].wallet_after, original, at))
    return events


def _controlled(draw: st.DrawFn, wallet: Wallet, at: datetime) -> list[RecordedEvent]:
    command = draw(st.none() | controls)
    decision = None if command is None else decide_control(wallet, command, now=at)
    if not isinstance(decision, WalletChanged):
        return []
    return [record(wallet, decision, made_by=draw(makers), key_digest=draw(digests))]


def _rewound(draw: st.DrawFn, wallet: Wallet, at: datetime) -> RecordedEvent:
    rewound = WalletRewound(
        wallet_id=wallet.id,
        common_version=wallet.version,
        common_hash=wallet.hash,
        lost=tuple(draw(st.lists(texts, max_size=3))),
        occurred_at=at,
    )
    return record(wallet, rewound)


def _settled(draw: st.DrawFn, wallet: Wallet, transfer: Transfer, at: datetime) -> RecordedEvent:
    """A settlement as a whole, of a part, or after a part."""
    before = transfer.completed_amount
    is_part = transfer.amount - before > 1 and draw(st.booleans())
    part = draw(st.integers(before + 1, transfer.amount - 1)) if is_part else None
    status = draw(st.sampled_from([PENDING, COMPLETED] if is_part else [COMPLETED, FAILED]))
    failed = status is FAILED
    after = msgspec.structs.replace(
        transfer,
        status=status,
        failure_reason=FailureReason.REVERTED if failed else None,
        settled_at=None if status is PENDING else at,
        part=(before or None) if failed else part,
    )
    event = TransferChanged(
        transfer=after, previous=PENDING, occurred_at=at, completed_before=before
    )
    return record(wallet, event, made_by=draw(makers), key_digest=draw(digests))


def _transfer_of(recorded: RecordedEvent) -> Transfer:
    assert isinstance(recorded.event, TransferChanged)
    return recorded.event.transfer


def _recorded(
    draw: st.DrawFn,
    wallet: Wallet,
    transfer: Transfer,
    previous: TransferStatus | None,
    at: datetime,
) -> RecordedEvent:
    event = TransferChanged(transfer=transfer, previous=previous, occurred_at=at)
    return record(wallet, event, made_by=draw(makers), key_digest=draw(digests))


class JournalRow(tuple[Any, ...]):
    """A row of `EVENT_COLUMNS`: by position and by name, as the driver's."""

    names: Mapping[str, int]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names[key] if isinstance(key, str) else key)


def journal_row(recorded: RecordedEvent, created: Wallet, format: int | None = 1) -> Any:
    """What Postgres returns for what was written. ``created``: the wallet as its row is today."""
    written = event_row(recorded)
    columns: dict[str, Any] = dict(
        zip(
            (
                *("wallet_id", "version", "type", "balance", "pending_debit", "pending_credit"),
                *("transfer_id", "transfer_type", "previous_status", "amount"),
                *("transfer_created_at", "created_version", "failure_reason", "reference_id"),
                *("metadata", "made_by", "hash", "previous_hash", "key_digest"),
            ),
            written,
            strict=True,
        )
    )
    chain = [columns.pop(name) for name in ("hash", "previous_hash", "key_digest")]
    wallet = {
        "currency": created.currency,
        "scale": created.scale,
        "wallet_reference_id": created.reference_id,
        "wallet_metadata": msgspec.json.encode(created.metadata).decode(),
        "wallet_created_at": created.created_at,
        "hash": chain[0],
        "previous_hash": chain[1],
        "key_digest": chain[2],
        "format": format,
    }
    head = {name: columns.pop(name) for name in ("wallet_id", "version", "type")}
    names = ("expires_at", "on_expiry", "completed_amount", "completed_before")
    of_hold: tuple[list[Any], ...] = hold_columns([recorded])
    expiry = {
        name: column[0] if column else None for name, column in zip(names, of_hold, strict=True)
    }
    of_refund: tuple[list[Any], ...] = refund_columns([recorded])
    refund = {
        name: column[0] if column else None
        for name, column in zip(
            ("refunds", "refunded_amount", "refund_pending_amount"), of_refund, strict=True
        )
    }
    row = head | {"occurred_at": recorded.event.occurred_at} | columns | wallet | expiry | refund
    made = JournalRow(row.values())
    made.names = {name: number for number, name in enumerate(row)}
    return made


def without_chain(recorded: RecordedEvent) -> RecordedEvent:
    """The event as a release from before the chain recorded it."""
    return msgspec.structs.replace(
        recorded,
        body=encode_first_body(recorded.event, recorded.wallet_after),
        wallet_after=msgspec.structs.replace(recorded.wallet_after, hash=b""),
        previous_hash=b"",
        key_digest=b"",
    )


@given(histories())
def test_row_event_and_message_have_the_same_content(history: list[RecordedEvent]) -> None:
    # The wallet's row is of today, with other metadata and another limit than then.
    today = msgspec.structs.replace(history[-1].wallet_after, metadata={"of": "today"})
    for recorded in history:
        message = encode_event(recorded)
        read = recorded_event_from_row(journal_row(recorded, today))
        assert encode_event(read) == message
        assert content_of(read) == content_of(recorded)
        assert content_of_event(decode_envelope(message)) == content_of(recorded)


def _has_refunds(recorded: RecordedEvent) -> bool:
    event = recorded.event
    return isinstance(event, TransferChanged) and (
        event.transfer.refunds is not None or event.transfer.refunded is not None
    )


@given(histories())
def test_events_from_before_the_chain_keep_their_bytes(history: list[RecordedEvent]) -> None:
    creation = history[0].event
    assume(isinstance(creation, WalletCreated) and not creation.overdraft_limit)
    today = history[-1].wallet_after
    for recorded in map(without_chain, history):
        if isinstance(recorded.event, WalletChanged) or _has_refunds(recorded):
            continue  # There were none.
        message = encode_event(recorded)
        read = recorded_event_from_row(journal_row(recorded, today, format=None))
        assert b"effect" not in message
        assert encode_event(read) == message
        assert content_of_event(decode_envelope(message)) == content_of(read)
        assert b"hash" not in message.split(b'"data"')[0]
        assert recorded.id == f"{WALLET_ID}:{recorded.wallet_after.version}"


@given(histories())
def test_each_event_follows_the_hash_of_the_one_before(history: list[RecordedEvent]) -> None:
    assert history[0].previous_hash == GENESIS
    for recorded in history:
        expected = link(recorded.previous_hash, content_of(recorded))
        assert recorded.wallet_after.hash == expected
        assert recorded.id.endswith(f":{recorded.wallet_after.version}:{expected.hex()}")
    for before, after in pairwise(history):
        assert after.previous_hash == before.wallet_after.hash


@given(first=histories(), second=histories())
def test_two_histories_have_one_hash_only_if_they_are_one(
    first: list[RecordedEvent], second: list[RecordedEvent]
) -> None:
    def facts(history: list[RecordedEvent]) -> list[bytes]:
        return [content_of(one) for one in history]

    same = first[-1].wallet_after.hash == second[-1].wallet_after.hash
    assert same == (facts(first) == facts(second))


def test_the_hash_of_an_event_is_what_it_always_was() -> None:
    # A contract with everyone who stores hashes. If it changes, old events are no longer found.
    creation = WalletCreated(
        wallet_id=WALLET_ID,
        currency="USD",
        scale=2,
        reference_id="shop-1",
        metadata={"tier": "gold"},
        occurred_at=NOW,
    )
    recorded = record(None, creation, key_digest=bytes(32))
    assert content_of(recorded) == (
        b'{"wallet":"01900000-0000-7000-8000-000000000001","version":1,"type":"wallet.created",'
        b'"time":"2026-01-02T03:04:05.678900Z","balance":"0","pending_debit":"0",'
        b'"pending_credit":"0","currency":"USD","scale":2,"reference_id":"shop-1",'
        b'"metadata":{"tier":"gold"},"key_digest":"' + b"0" * 64 + b'"}'
    )
    assert recorded.wallet_after.hash.hex() == "863d256ddd1f570b01f4baa95d4b0466"
