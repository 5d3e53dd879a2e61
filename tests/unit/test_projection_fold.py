"""Applying stream events to rows: the last state wins, duplicates are ignored, gaps are found."""

from typing import Any

import msgspec
import pytest

from projections.changes import FORKED, EventMismatch, decode_message, project_events
from projections.store import BalanceRow, ProjectionChanges, TransferRow, WalletRow
from tests.support.domain import (
    LATER,
    NOW,
    OTHER_WALLET_ID,
    WALLET_ID,
    changed,
    created,
    make_transfer,
    make_wallet,
    settled,
    transfer_id,
)
from tests.support.writes import CommitRequestBuilder
from wallet.event_codec import CloudEvent, decode_envelope, encode_event, subject_of
from wallet.events import EventType, RecordedEvent
from wallet.ids import WalletId
from wallet.state import FailureReason, Transfer, TransferStatus, TransferType

PENDING, COMPLETED, FAILED = TransferStatus


def events(*recorded: RecordedEvent) -> list[CloudEvent]:
    """Events as received from the stream."""
    return [decode_envelope(encode_event(one)) for one in recorded]


def creation(wallet: WalletId = WALLET_ID) -> RecordedEvent:
    return created(make_wallet(id=wallet, version=1, reference_id="r", metadata={"a": "b"}))


def make_debit(
    version: int, *, wallet: WalletId = WALLET_ID, status: TransferStatus = COMPLETED
) -> RecordedEvent:
    """The debit of 1.00 that created ``version``; all earlier events are such debits."""
    transfer = make_transfer(
        id=transfer_id(version), status=status, settled_at=NOW if status is COMPLETED else None
    )
    return changed(
        transfer, make_wallet(id=wallet, version=version, balance=100 * (version - 1)), at=LATER
    )


def make_settlement(
    transfer: Transfer, version: int, status: TransferStatus = FAILED
) -> RecordedEvent:
    done = settled(transfer, status, reference_id="why", metadata={"x": "y"})
    return changed(done, make_wallet(version=version, balance=7), previous=PENDING, at=LATER)


def versions(projected: ProjectionChanges) -> dict[str, tuple[int, int]]:
    return {row.id: (row.first_version, row.last_version) for row in projected.balances}


def test_nothing_folds_to_nothing() -> None:
    assert project_events([]) == ProjectionChanges(wallets=[], balances=[], transfers=[])


def test_a_creation_is_a_wallet_with_empty_balances() -> None:
    assert project_events(events(creation())) == ProjectionChanges(
        wallets=[WalletRow(WALLET_ID, "r", "USD", 2, "active", '{"a":"b"}', NOW)],
        balances=[BalanceRow(WALLET_ID, 1, 1, "000", "000", "000", NOW)],
        transfers=[],
    )


def test_a_wallet_s_balances_are_those_of_its_last_event() -> None:
    projected = project_events(events(creation(), make_debit(2), make_debit(3), make_debit(4)))
    assert projected.balances == [BalanceRow(WALLET_ID, 1, 4, "300", "000", "000", LATER)]
    assert [row.version for row in projected.transfers] == [2, 3, 4]


def test_a_transfer_is_a_row_with_its_place_in_the_wallet_s_order() -> None:
    (row,) = project_events(events(make_debit(5, status=PENDING))).transfers
    assert row == TransferRow(
        WALLET_ID,
        transfer_id(5),
        "debit",
        "pending",
        "100",
        None,
        None,
        None,
        NOW,
        None,
        5,
        5,
    )


def test_a_transfer_settled_in_the_same_batch_is_one_row_as_it_ends() -> None:
    held = make_transfer(id=transfer_id(5), type=TransferType.CREDIT)
    projected = project_events(
        events(
            changed(held, make_wallet(version=5)), make_debit(6), make_settlement(held, version=7)
        )
    )
    row = projected.transfers[0]
    assert (row.status, row.failure_reason) == ("failed", FailureReason.REVERTED)
    assert (row.reference_id, row.metadata) == ("why", '{"x":"y"}')
    assert (row.created_at, row.settled_at) == (NOW, LATER)
    assert (row.created_version, row.version) == (5, 7)


@pytest.mark.parametrize("status", [COMPLETED, FAILED])
def test_a_transfer_from_before_is_settled_on_its_own(status: TransferStatus) -> None:
    held = make_transfer(id=transfer_id(3))
    projected = project_events(events(make_settlement(held, version=9, status=status)))
    reason = FailureReason.REVERTED if status is FAILED else None
    assert projected.transfers == [
        TransferRow(
            WALLET_ID,
            held.id,
            "debit",
            status,
            "100",
            "why",
            '{"x":"y"}',
            reason,
            NOW,
            LATER,
            None,
            9,
        )
    ]


def test_repeated_and_older_events_are_dropped() -> None:
    in_order = [creation(), make_debit(2), make_debit(3)]
    repeated = [creation(), make_debit(2), creation(), make_debit(2), make_debit(3), make_debit(2)]
    assert project_events(events(*repeated)) == project_events(events(*in_order))


def test_a_gap_inside_a_batch_leaves_only_what_follows_it_connected() -> None:
    projected = project_events(events(creation(), make_debit(2), make_debit(5), make_debit(6)))
    assert versions(projected) == {WALLET_ID: (5, 6)}
    assert projected.balances[0].balance == "500"


def test_an_event_that_comes_too_late_does_not_close_its_gap() -> None:
    projected = project_events(events(make_debit(2), make_debit(4), make_debit(3)))
    assert versions(projected) == {WALLET_ID: (4, 4)}


def test_wallets_in_one_batch_don_t_mix() -> None:
    projected = project_events(
        events(
            make_debit(2),
            make_debit(7, wallet=OTHER_WALLET_ID),
            make_debit(3),
            make_debit(8, wallet=OTHER_WALLET_ID),
        )
    )
    assert versions(projected) == {WALLET_ID: (2, 3), OTHER_WALLET_ID: (7, 8)}
    assert {(row.wallet_id, row.version) for row in projected.transfers} == {
        (WALLET_ID, 2),
        (WALLET_ID, 3),
        (OTHER_WALLET_ID, 7),
        (OTHER_WALLET_ID, 8),
    }


def test_amounts_of_every_scale_become_minor_units() -> None:
    rows: list[Any] = []
    for scale in (0, 2, 18):
        wallet = make_wallet(version=2, scale=scale, balance=12)
        transfer = make_transfer(amount=12, status=COMPLETED, settled_at=NOW)
        rows += project_events(events(changed(transfer, wallet))).balances
    assert [int(row.balance) for row in rows] == [12, 12, 12]


def test_an_overdrawn_balance_keeps_its_sign() -> None:
    wallet = make_wallet(version=2, balance=-5, overdraft_limit=5)
    (row,) = project_events(events(changed(make_transfer(), wallet))).balances
    assert int(row.balance) == -5


def test_data_of_another_shape_than_its_type_says_is_refused() -> None:
    (envelope,) = events(make_debit(2))
    with pytest.raises(msgspec.MsgspecError):
        project_events([msgspec.structs.replace(envelope, type="wallet.created")])


def spoilt(**fields: object) -> CloudEvent:
    (event,) = events(make_debit(2))
    return msgspec.structs.replace(event, **fields)


@pytest.mark.parametrize(
    "event",
    [
        spoilt(walletversion=3),
        spoilt(id=f"{WALLET_ID}:3"),
        spoilt(id=f"{WALLET_ID}:3", walletversion=3),
        spoilt(id=f"{WALLET_ID}:0", walletversion=0),
        spoilt(id=f"{OTHER_WALLET_ID}:2", subject=OTHER_WALLET_ID),
    ],
)
def test_an_event_that_contradicts_itself_is_not_applied(event: CloudEvent) -> None:
    with pytest.raises(EventMismatch):
        project_events([event])


def test_a_message_is_read_as_what_its_subject_says() -> None:
    recorded = make_debit(2)
    payload = encode_event(recorded)
    subject = subject_of(WALLET_ID, recorded.event.type, 4)
    assert decode_message(subject, payload) == decode_envelope(payload)
    for other in (
        subject_of(OTHER_WALLET_ID, recorded.event.type, 4),
        subject_of(WALLET_ID, EventType.TRANSFER_FAILED, 4),
        "s",
    ):
        with pytest.raises(EventMismatch):
            decode_message(other, payload)


# -- the chain -------------------------------------------------------------------------------------


def chained(*amounts: int) -> list[CloudEvent]:
    """A wallet's creation and debits of these amounts, linked."""
    builder = CommitRequestBuilder()
    builder.create(WALLET_ID)
    for number, amount in enumerate(amounts):
        debit = make_transfer(
            id=transfer_id(100 * number + amount), status=COMPLETED, amount=amount, settled_at=NOW
        )
        builder.transfer(WALLET_ID, debit)
    return events(*builder.write.events)


def test_a_batch_states_the_hash_before_it_and_its_last_one() -> None:
    batch = chained(1, 2, 3)
    (row,) = project_events([batch[1], batch[2], batch[1], batch[3]]).balances
    assert row.previous_hash.hex() == batch[0].hash
    assert row.hash.hex() == batch[3].hash


def test_two_histories_in_one_batch_are_a_fork() -> None:
    one, other = chained(1, 2, 3), chained(1, 7, 8, 9)
    for mixed in ([*one, *other], [*one[:3], *other[3:]], [*one, *other[2:3]]):
        (row,) = project_events(mixed).balances
        assert row.hash == FORKED


def test_what_comes_before_a_gap_in_a_batch_is_left_to_the_journal() -> None:
    one = chained(1, 2, 3, 4)
    projected = project_events([*one[:2], *one[3:]])
    assert versions(projected) == {WALLET_ID: (4, 5)}
    assert [row.version for row in projected.transfers] == [4, 5]


def test_an_event_without_a_hash_is_compared_by_version_only() -> None:
    batch = chained(1, 2)
    old = msgspec.structs.replace(
        batch[1], id=f"{WALLET_ID}:2", hash=msgspec.UNSET, previoushash=msgspec.UNSET
    )
    (row,) = project_events([batch[0], old, batch[2]]).balances
    assert (row.first_version, row.last_version) == (1, 3)
    assert row.hash.hex() == batch[2].hash
