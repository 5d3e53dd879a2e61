"""Lost events of transfers that expire are applied again, whatever the time is meanwhile."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from actors.history.ports import LostEvent
from actors.history.recovery import APPLIED_AGAIN, PRESENT, ForkedWallet, Recovery, recover_wallet
from actors.journal.assertions import assert_writable
from tests.support.domain import NOW, make_transfer, settled, transfer_id, wallet_id
from tests.support.writes import CommitRequestBuilder
from wallet.event_codec import encode_event
from wallet.events import RecordedEvent, TransferChanged
from wallet.state import Expiry, FailureReason, OnExpiry, Transfer, TransferStatus, Wallet

DUE = NOW + timedelta(seconds=10)
LATE = DUE + timedelta(hours=1)


def recovered(
    lost: Sequence[RecordedEvent], wallet: Wallet, now: datetime, *known: Transfer
) -> Recovery:
    events = [
        LostEvent(
            wallet_id=wallet.id,
            version=one.wallet_after.version,
            hash=one.wallet_after.hash,
            payload=encode_event(one),
            found_at=now,
        )
        for one in lost
    ]
    forked = ForkedWallet(
        wallet_id=wallet.id,
        common_version=wallet.version,
        common_hash=wallet.hash,
        lost=events,
        wallet=wallet,
        transfers={one.id: one for one in known},
    )
    recovery = recover_wallet(forked, apply_again=True, now=lambda: now)
    assert_writable(recovery.write)
    return recovery


def transfers_of(recovery: Recovery) -> list[Transfer]:
    found = [one.event for one in recovery.write.events]
    return [one.transfer for one in found if isinstance(one, TransferChanged)]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (TransferStatus.COMPLETED, None),
        (TransferStatus.FAILED, FailureReason.REVERTED),
        (TransferStatus.FAILED, FailureReason.EXPIRED),
    ],
)
@pytest.mark.parametrize("now", [NOW, LATE], ids=["in_time", "late"])
def test_a_hold_and_its_end_are_applied_again(
    status: TransferStatus, reason: FailureReason | None, now: datetime
) -> None:
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    expiry = Expiry(DUE, OnExpiry.COMPLETE)
    held = making.transfer(wallet.id, make_transfer(id=transfer_id(1), expiry=expiry))
    end = settled(held, status, failure_reason=reason)
    making.settle(wallet.id, end)
    recovery = recovered(making.write.events[1:], wallet, now)
    again = transfers_of(recovery)
    assert again[0].expiry == expiry
    if reason is FailureReason.EXPIRED and now < DUE:
        # This clock is behind: the shard's sweep does it.
        assert [one.status for one in again] == [TransferStatus.PENDING]
        return
    assert recovery.outcomes == [APPLIED_AGAIN, APPLIED_AGAIN]
    if reason is FailureReason.EXPIRED:
        # What becomes of it is decided again: nothing is frozen now.
        assert again[1].status is TransferStatus.COMPLETED
    else:
        assert (again[1].status, again[1].failure_reason) == (status, end.failure_reason)


def test_a_part_is_completed_again_as_a_part() -> None:
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    held = making.transfer(wallet.id, make_transfer(id=transfer_id(1), amount=1_000))
    making.settle(wallet.id, settled(held, TransferStatus.COMPLETED, part=5))
    recovery = recovered(making.write.events[1:], wallet, LATE)
    assert recovery.outcomes == [APPLIED_AGAIN, APPLIED_AGAIN]
    assert transfers_of(recovery)[1].part == 5
    assert recovery.write.wallets[wallet.id].balance == 5


@pytest.mark.parametrize("known", [0, 1, 2])
def test_parts_are_completed_again_one_by_one(known: int) -> None:
    """``known``: how many of them the journal has."""
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    held = making.transfer(wallet.id, make_transfer(id=transfer_id(1), amount=1_000))
    states = [(making.write.wallets[wallet.id], held)]
    for part in (300, 500):
        after = making.complete_part(wallet.id, states[-1][1], part)
        states.append((making.write.wallets[wallet.id], after))
    making.settle(wallet.id, settled(states[-1][1], TransferStatus.COMPLETED, part=600))
    now, transfer = states[known]
    recovery = recovered(making.write.events[2:], now, LATE, transfer)
    expected = [PRESENT] * known + [APPLIED_AGAIN] * (3 - known)
    assert recovery.outcomes == expected
    assert transfers_of(recovery)[-1].completed_amount == 600
    after_all = recovery.write.wallets[wallet.id]
    assert (after_all.balance, after_all.pending_debit) == (600, 0)


def test_what_expired_in_both_histories_is_there_already() -> None:
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    held = making.transfer(wallet.id, make_transfer(id=transfer_id(1), expiry=Expiry(DUE)))
    end = settled(held, TransferStatus.FAILED, failure_reason=FailureReason.EXPIRED)
    making.settle(wallet.id, end)
    after = making.write.wallets[wallet.id]
    recovery = recovered(making.write.events[2:], after, LATE, end)
    assert recovery.outcomes == [PRESENT]
