"""Events on the stream: these bytes and subjects are a contract with all consumers."""

import msgspec
import pytest

from tests.support.domain import (
    LATER,
    NOW,
    TRANSFER_ID,
    WALLET_ID,
    changed,
    created,
    make_transfer,
    make_wallet,
    settled,
    wallet_id,
)
from wallet.event_codec import decode_envelope, encode_event, partition_of, subject_of
from wallet.events import EventType, RecordedEvent
from wallet.representation import encode_first_body
from wallet.state import FailureReason, TransferStatus, TransferType

PENDING, COMPLETED, FAILED = TransferStatus

CREATED = created(make_wallet(version=1, reference_id="shop-1", metadata={"tier": "gold"}))
HELD = changed(
    make_transfer(type=TransferType.CREDIT, amount=1050, metadata={"a": "Ž"}),
    make_wallet(version=2, balance=950, pending_credit=1050),
)
REVERTED = changed(
    settled(
        make_transfer(type=TransferType.CREDIT, amount=1050),
        FAILED,
        failure_reason=FailureReason.REVERTED,
        reference_id="why",
    ),
    make_wallet(version=3, balance=2000),
    previous=PENDING,
    at=LATER,
)

GOLDEN = {
    "created": (
        CREATED,
        b'{"specversion":"1.0","id":"01900000-0000-7000-8000-000000000001:1",'
        b'"source":"/wallet-service","type":"wallet.created",'
        b'"subject":"01900000-0000-7000-8000-000000000001","time":"2026-01-02T03:04:05.678900Z",'
        b'"datacontenttype":"application/json","walletversion":1,"data":{'
        b'"id":"01900000-0000-7000-8000-000000000001","reference_id":"shop-1","currency":"USD",'
        b'"scale":2,"status":"active","balance":"0.00","pending_credit":"0.00",'
        b'"pending_debit":"0.00","version":1,"metadata":{"tier":"gold"},'
        b'"created_at":"2026-01-02T03:04:05.678900Z","updated_at":"2026-01-02T03:04:05.678900Z"}}',
    ),
    "held": (
        HELD,
        b'{"specversion":"1.0","id":"01900000-0000-7000-8000-000000000001:2",'
        b'"source":"/wallet-service","type":"transfer.pending",'
        b'"subject":"01900000-0000-7000-8000-000000000001","time":"2026-01-02T03:04:05.678900Z",'
        b'"datacontenttype":"application/json","walletversion":2,"data":{'
        b'"id":"01900000-0000-7000-8000-00000000000a",'
        b'"wallet_id":"01900000-0000-7000-8000-000000000001","type":"credit","status":"pending",'
        b'"amount":"10.50","currency":"USD","reference_id":null,'
        b'"metadata":{"a":"\xc5\xbd"},"failure_reason":null,'
        b'"created_at":"2026-01-02T03:04:05.678900Z","settled_at":null,"wallet":{"version":2,'
        b'"balance":"9.50","pending_credit":"10.50","pending_debit":"0.00"}}}',
    ),
    "reverted": (
        REVERTED,
        b'{"specversion":"1.0","id":"01900000-0000-7000-8000-000000000001:3",'
        b'"source":"/wallet-service","type":"transfer.failed",'
        b'"subject":"01900000-0000-7000-8000-000000000001","time":"2026-01-02T03:04:06Z",'
        b'"datacontenttype":"application/json","walletversion":3,"previousstatus":"pending",'
        b'"data":{"id":"01900000-0000-7000-8000-00000000000a",'
        b'"wallet_id":"01900000-0000-7000-8000-000000000001","type":"credit","status":"failed",'
        b'"amount":"10.50","currency":"USD","reference_id":"why","metadata":{},'
        b'"failure_reason":"reverted","created_at":"2026-01-02T03:04:05.678900Z",'
        b'"settled_at":"2026-01-02T03:04:06Z","wallet":{"version":3,"balance":"20.00",'
        b'"pending_credit":"0.00","pending_debit":"0.00"}}}',
    ),
}


EARLIER = {
    name: (msgspec.structs.replace(one, body=encode_first_body(one.event, one.wallet_after)), sent)
    for name, (one, sent) in GOLDEN.items()
}
"""As releases published them that had no format in the journal."""

GOLDEN = {
    name: (
        recorded,
        payload.replace(
            b'"updated_at":"2026-01-02T03:04:05.678900Z"}',
            b'"updated_at":"2026-01-02T03:04:05.678900Z","overdraft_limit":"0.00","frozen":null,'
            b'"frozen_reason":null}',
        ).replace(b',"wallet":{', b',"effect":"out","wallet":{'),
    )
    for name, (recorded, payload) in GOLDEN.items()
}


@pytest.mark.parametrize(("recorded", "payload"), EARLIER.values(), ids=EARLIER)
def test_an_event_of_an_earlier_release_keeps_its_bytes(
    recorded: RecordedEvent, payload: bytes
) -> None:
    assert encode_event(recorded) == payload


@pytest.mark.parametrize(("recorded", "payload"), GOLDEN.values(), ids=GOLDEN)
def test_an_event_is_these_bytes(recorded: RecordedEvent, payload: bytes) -> None:
    assert encode_event(recorded) == payload


@pytest.mark.parametrize(("recorded", "payload"), GOLDEN.values(), ids=GOLDEN)
def test_an_event_is_read_as_it_was_written(recorded: RecordedEvent, payload: bytes) -> None:
    envelope = decode_envelope(payload)
    assert (envelope.id, envelope.subject) == (recorded.id, recorded.wallet_after.id)
    assert envelope.walletversion == recorded.wallet_after.version
    assert envelope.time == recorded.event.occurred_at
    assert bytes(envelope.data) == recorded.body


def test_an_event_has_the_previous_status_of_its_transfer() -> None:
    assert decode_envelope(encode_event(HELD)).previousstatus is msgspec.UNSET
    assert decode_envelope(encode_event(REVERTED)).previousstatus == "pending"


@pytest.mark.parametrize(
    ("status", "previous", "type_"),
    [
        (PENDING, None, "transfer.pending"),
        (COMPLETED, None, "transfer.completed"),
        (COMPLETED, PENDING, "transfer.completed"),
        (FAILED, PENDING, "transfer.failed"),
    ],
)
def test_a_transfer_s_event_is_named_after_what_it_became(
    status: TransferStatus, previous: TransferStatus | None, type_: str
) -> None:
    transfer = make_transfer(status=status, settled_at=None if status is PENDING else NOW)
    assert changed(transfer, make_wallet(), previous=previous).event.type == type_


def test_a_subject_has_partition_wallet_and_type() -> None:
    assert (
        subject_of(WALLET_ID, EventType.TRANSFER_FAILED, 16)
        == f"wallet.events.{partition_of(WALLET_ID, 16)}.{WALLET_ID}.transfer.failed"
    )


def test_a_wallet_s_partition_never_changes() -> None:
    # A wallet that moved to another partition would change its consumer: events out of order.
    partitions = [partition_of(wallet_id(number), 16) for number in range(12)]
    assert partitions == [8, 14, 4, 2, 1, 7, 13, 11, 10, 12, 10, 0]


def test_wallets_spread_over_all_partitions() -> None:
    counts = [0] * 16
    for number in range(16_000):
        counts[partition_of(wallet_id(number), 16)] += 1
    assert min(counts) > 800
    assert max(counts) < 1_200


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[]", b"not json", b'{"id":1}', GOLDEN["held"][1][:-1]]
)
def test_what_is_no_event_of_ours_is_refused(payload: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_envelope(payload)


def test_an_event_s_id_is_the_same_whoever_publishes_it() -> None:
    assert HELD.id == f"{WALLET_ID}:2"
    assert TRANSFER_ID not in HELD.id
