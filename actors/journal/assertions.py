"""Assertions at the journal's interface, in pairs: before the write, and after the read.

None of them can fail unless the code is wrong or the data is corrupt. What another writer, a client
or an outage can cause is a conflict or a failure (`actors.journal.ports`). If one fails, the shard
exits and has written nothing of that batch.
"""

from actors.journal.ports import CommitRequest, LoadedState
from wallet.chain import GENESIS, HASH_BYTES
from wallet.events import RecordedEvent, TransferChanged
from wallet.fold import assert_invariants, assert_refunded
from wallet.ids import WalletId
from wallet.state import FailureReason, Transfer, TransferStatus, Wallet


def assert_writable(batch: CommitRequest) -> None:
    """Before the commit: the parts of ``batch`` are consistent."""
    known = batch.expected_versions.keys() | set(batch.created_wallets)
    assert batch.wallets.keys() == known, "INV-5 a written wallet has a version that is checked"
    states: dict[WalletId, Wallet] = {}
    for recorded in batch.events:
        _assert_follows(recorded, states, batch)
        states[recorded.wallet_after.id] = recorded.wallet_after
    for wallet_id, wallet in batch.wallets.items():
        if wallet_id in states:
            assert wallet is states[wallet_id], "INV-12 a wallet is what its last event says"
        else:
            assert wallet.version == batch.expected_versions[wallet_id], (
                "INV-10 no version without event"
            )
    if batch.stored_answers:
        _assert_keys(batch)
    if batch.refused:
        _assert_refused(batch)


def _assert_follows(
    recorded: RecordedEvent, states: dict[WalletId, Wallet], batch: CommitRequest
) -> None:
    wallet = recorded.wallet_after
    before = states.get(wallet.id)
    if before is None:
        version = batch.expected_versions.get(wallet.id, 0)
        previous = batch.expected_hashes.get(wallet.id, GENESIS)
    else:
        version, previous = before.version, before.hash
    assert wallet.version == version + 1, "INV-10 versions are contiguous"
    assert recorded.previous_hash == previous, "INV-13 an event follows the one before it"
    if isinstance(recorded.event, TransferChanged):
        _assert_expiry(recorded.event)
        is_refund = recorded.event.transfer.refunds is not None
        assert is_refund == (recorded.event.refunded is not None), (
            "INV-16 a refund is counted at what it refunds"
        )


def _assert_expiry(event: TransferChanged) -> None:
    transfer = event.transfer
    if transfer.expiry is None:
        assert transfer.failure_reason is not FailureReason.EXPIRED, (
            "INV-15 what expires has a time"
        )
    elif event.previous is None:
        assert transfer.status is TransferStatus.PENDING, "INV-15 only what is pending expires"


def _assert_keys(batch: CommitRequest) -> None:
    for (scope, _), stored in batch.stored_answers.items():
        wallet = batch.wallets.get(scope)
        # The scope of a wallet creation's key is no wallet; the new wallet has version 1.
        latest = wallet.version if wallet is not None else 1
        assert stored.version <= latest, "INV-6 an answer is of a version that is written"


def _assert_refused(batch: CommitRequest) -> None:
    made = {
        (one.wallet_after.id, one.event.transfer.id)
        for one in batch.events
        if isinstance(one.event, TransferChanged) and one.event.previous is None
    }
    made |= batch.deliveries
    assert made.isdisjoint(batch.refused), "INV-7 what is refused permanently is not written"


def assert_loaded(loaded: LoadedState) -> None:
    """After the read: the state that a batch is decided on keeps the invariants."""
    for wallet in loaded.wallets.values():
        assert wallet.version >= 1, "INV-10 a wallet's creation is its version 1"
        assert len(wallet.hash) == HASH_BYTES, "INV-13 a loaded wallet's hash is known"
        assert_invariants(wallet)
    if loaded.unpublished:
        _assert_unpublished(loaded)
    for (_, transfer_id), transfer in loaded.transfers.items():
        assert transfer.id == transfer_id, "INV-7 a transfer is stored under its id"
        _assert_transfer(transfer)
    for (wallet_id, transfer_id), recorded in loaded.created_transfers.items():
        assert recorded.wallet_after.id == wallet_id, "INV-7 a transfer is stored under its wallet"
        assert _created_by(recorded) == transfer_id, "INV-7 a transfer's first event created it"


def _assert_unpublished(loaded: LoadedState) -> None:
    reached: dict[WalletId, int] = {}
    for event_range in loaded.unpublished:
        # There may be gaps: two owners of one wallet may each have deleted some of its rows.
        assert event_range.first > reached.get(event_range.wallet_id, 0), (
            "INV-9 outbox rows are in order"
        )
        reached[event_range.wallet_id] = event_range.last
    for wallet_id, last in reached.items():
        written = loaded.wallets[wallet_id].version
        assert last <= written, "INV-9 the outbox has only what is written"


def _assert_transfer(transfer: Transfer) -> None:
    assert transfer.created_version > 1, "INV-10 a wallet's creation is its version 1"
    is_pending = transfer.status is TransferStatus.PENDING
    assert is_pending == (transfer.settled_at is None), "INV-4 settled is what is not pending"
    if transfer.refunded is not None:
        assert transfer.refunds is None, "INV-16 a refund is not refunded"
        assert_refunded(transfer, transfer.refunded)


def _created_by(recorded: RecordedEvent) -> str | None:
    event = recorded.event
    if isinstance(event, TransferChanged) and event.previous is None:
        return event.transfer.id
    return None
