"""What a batch has decided so far: the wallets and transfers as it leaves them, and what it writes.

Reads the cache and never changes it: if the transaction is rejected, all of this is discarded.
"""

from datetime import datetime
from typing import NamedTuple

import msgspec

from actors.journal.ports import (
    CommitRequest,
    IdempotencyKeyRef,
    LoadedState,
    StoredAnswer,
    TransferKey,
)
from actors.rpc.messages import Applied
from actors.shard.cache import WalletCache
from wallet.chain import record
from wallet.events import Event, RecordedEvent, TransferChanged
from wallet.fold import count_refund
from wallet.ids import TransferId, WalletId
from wallet.state import Transfer, Wallet


class Mark(NamedTuple):
    """A point of a batch to roll back to: one wallet, and the numbers of events and answers."""

    wallet_id: WalletId
    wallet: Wallet | None
    events: int
    answers: int


class BatchState:
    """The state after the commands decided so far."""

    def __init__(self, *, cache: WalletCache, loaded: LoadedState, now: datetime) -> None:
        self._cache = cache
        self._loaded = loaded
        self.keys: dict[IdempotencyKeyRef, StoredAnswer] = dict(loaded.keys)
        self.transfers: dict[TransferKey, Transfer] = dict(loaded.transfers)
        """Transfers as the batch leaves them, loaded ones included."""
        self.created_transfers: dict[TransferKey, RecordedEvent] = {}
        """Transfers that this batch creates: a batch may contain two deliveries of one command."""
        self._previous_transfers: list[Transfer | None] = []
        """What each recorded event replaced in ``transfers``."""
        self._previous_originals: dict[int, Transfer] = {}
        """And what the event of a refund replaced of the transfer that it refunds, by the event's
        place."""
        self.first_expiry: datetime | None = None
        """When the first of ``created_transfers`` expires; it may have been rolled back since."""
        self.write = CommitRequest(
            now=now,
            expected_versions={},
            expected_hashes={},
            wallets={},
            created_wallets=[],
            events=[],
        )

    def wallet(self, wallet_id: WalletId) -> Wallet | None:
        wallet = self.write.wallets.get(wallet_id)
        if wallet is not None:
            return wallet
        active = self._cache.get(wallet_id)
        return active.state if active is not None else self._loaded.wallets.get(wallet_id)

    def wallet_with_version_check(self, wallet_id: WalletId) -> Wallet | None:
        """The wallet; the transaction will check that it still has this version (INV-5)."""
        wallet = self.wallet(wallet_id)
        if wallet is not None and wallet_id not in self.write.wallets:
            self.write.expected_versions[wallet_id] = wallet.version
            self.write.expected_hashes[wallet_id] = wallet.hash
            self.write.wallets[wallet_id] = wallet
        return wallet

    def transfer(self, wallet_id: WalletId, transfer_id: TransferId) -> Transfer | None:
        transfer = self.transfers.get((wallet_id, transfer_id))
        if transfer is not None:
            return transfer
        active = self._cache.get(wallet_id)
        return active.pending.get(transfer_id) if active is not None else None

    def record(
        self,
        wallet: Wallet | None,
        event: Event,
        *,
        made_by: str | None = None,
        key_digest: bytes = b"",
    ) -> Applied:
        """Write ``event``, which was decided on ``wallet``."""
        if isinstance(event, TransferChanged) and event.transfer.refunds is not None:
            assert wallet is not None, "a transfer belongs to a wallet"
            event = self._count_refund(wallet.id, event, event.transfer.refunds)
        recorded = record(wallet, event, made_by=made_by, key_digest=key_digest)
        after = recorded.wallet_after
        self.write.wallets[after.id] = after
        self.write.events.append(recorded)
        made: TransferId | WalletId = after.id
        if isinstance(event, TransferChanged):
            made = event.transfer.id
            key = (after.id, made)
            self._previous_transfers.append(self.transfers.get(key))
            self.transfers[key] = event.transfer
            if event.previous is None:
                self.created_transfers[key] = recorded
                if event.transfer.expiry is not None:
                    self._note_expiry(event.transfer.expiry.at)
        else:
            self._previous_transfers.append(None)
        return Applied(id=made, version=after.version, body=recorded.body)

    def _count_refund(
        self, wallet_id: WalletId, event: TransferChanged, refunds: TransferId
    ) -> TransferChanged:
        """``event`` of a refund, counted at the transfer that it refunds. (INV-16)"""
        original = self.transfer(wallet_id, refunds)
        assert original is not None, "INV-16 a refund is decided with what it refunds"
        counted = count_refund(original, event)
        self._previous_originals[len(self.write.events)] = original
        self.transfers[wallet_id, refunds] = msgspec.structs.replace(
            original, refunded=counted.refunded
        )
        return counted

    def _note_expiry(self, at: datetime) -> None:
        if self.first_expiry is None or at < self.first_expiry:
            self.first_expiry = at

    def mark(self, wallet_id: WalletId) -> Mark:
        """This point, for a request that may change nothing but ``wallet_id``."""
        answers = len(self.write.stored_answers)
        return Mark(wallet_id, self.wallet(wallet_id), len(self.write.events), answers)

    def roll_back(self, mark: Mark) -> None:
        """Take back the events and answers since ``mark``."""
        write, wallet_id = self.write, mark.wallet_id
        if mark.wallet is not None and wallet_id in write.wallets:
            write.wallets[wallet_id] = mark.wallet
        while len(write.events) > mark.events:
            event = write.events.pop().event
            self._restore_transfer(wallet_id, event, self._previous_transfers.pop())
            original = self._previous_originals.pop(len(write.events), None)
            if original is not None:
                self.transfers[wallet_id, original.id] = original
        while len(write.stored_answers) > mark.answers:
            key, _ = write.stored_answers.popitem()
            del self.keys[key]

    def _restore_transfer(
        self, wallet_id: WalletId, event: Event, overwritten: Transfer | None
    ) -> None:
        if not isinstance(event, TransferChanged):
            return
        if event.previous is None:
            del self.created_transfers[wallet_id, event.transfer.id]
        if overwritten is None:
            del self.transfers[wallet_id, event.transfer.id]
        else:
            self.transfers[wallet_id, event.transfer.id] = overwritten
