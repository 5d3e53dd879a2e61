"""Builds commit requests for a journal with the real `evolve`, without deciding."""

from datetime import datetime
from typing import Any

import msgspec

from actors.journal.ports import CommitRequest, StoredAnswer
from tests.support.domain import NOW
from wallet.chain import record
from wallet.commands import ControlWallet
from wallet.control_rules import decide_control
from wallet.events import Event, TransferChanged, WalletChanged, WalletCreated
from wallet.fold import count_refund
from wallet.ids import IdempotencyKey, TransferId, WalletId
from wallet.state import Transfer, TransferStatus, Wallet

REFUSAL = '{"code":"insufficient_funds","detail":"Žofie"}'.encode()


class CommitRequestBuilder:
    """Builds a `CommitRequest` event by event, from the wallets before it."""

    def __init__(self, *wallets: Wallet, now: datetime = NOW) -> None:
        self._now = now
        self._completed: dict[tuple[WalletId, TransferId], int] = {}
        """Parts that this builder has completed."""
        self.transfers: dict[tuple[WalletId, TransferId], Transfer] = {}
        """As their last events here left them. What is refunded must be among them."""
        self.write = CommitRequest(
            now=now,
            expected_versions={wallet.id: wallet.version for wallet in wallets},
            expected_hashes={wallet.id: wallet.hash for wallet in wallets},
            wallets={wallet.id: wallet for wallet in wallets},
            created_wallets=[],
            events=[],
        )

    def create(
        self,
        wallet_id: WalletId,
        *,
        reference_id: str | None = None,
        overdraft_limit: int = 0,
        **metadata: str,
    ) -> Wallet:
        event = WalletCreated(
            wallet_id=wallet_id,
            currency="USD",
            scale=2,
            reference_id=reference_id,
            metadata=metadata,
            overdraft_limit=overdraft_limit,
            occurred_at=self._now,
        )
        self.write.created_wallets.append(wallet_id)
        return self._record(None, event, made_by=None)

    def control(self, wallet_id: WalletId, command: ControlWallet) -> Wallet:
        """Record a change of the wallet's control."""
        wallet = self.write.wallets[wallet_id]
        event = decide_control(wallet, command, now=self._now)
        assert isinstance(event, WalletChanged), event
        return self._record(wallet, event, made_by=None)

    def transfer(
        self, wallet_id: WalletId, transfer: Transfer, *, made_by: str | None = None
    ) -> Transfer:
        """Record a new transfer; sets its creation version."""
        wallet = self.write.wallets[wallet_id]
        placed = msgspec.structs.replace(
            transfer,
            created_version=wallet.version + 1,
            created_at=self._now,
            settled_at=None if transfer.status is TransferStatus.PENDING else self._now,
        )
        self._change(wallet, placed, None, made_by)
        return placed

    def settle(self, wallet_id: WalletId, transfer: Transfer) -> Transfer:
        """Record the settlement of ``transfer``, given in its state after it."""
        after = msgspec.structs.replace(transfer, settled_at=self._now)
        before = self._completed.get((wallet_id, transfer.id), 0)
        self._change(self.write.wallets[wallet_id], after, TransferStatus.PENDING, None, before)
        return after

    def complete_part(self, wallet_id: WalletId, transfer: Transfer, part: int) -> Transfer:
        """Record that ``part`` in all is completed of a pending transfer."""
        after = msgspec.structs.replace(transfer, part=part)
        before = self._completed.get((wallet_id, transfer.id), transfer.completed_amount)
        self._change(self.write.wallets[wallet_id], after, TransferStatus.PENDING, None, before)
        self._completed[wallet_id, transfer.id] = part
        return after

    def key(self, scope: WalletId, key: str, answer: StoredAnswer) -> None:
        self.write.stored_answers[scope, IdempotencyKey(key)] = answer

    def refuse(self, wallet_id: WalletId, transfer_id: TransferId) -> None:
        """Record a permanent refusal of a transfer."""
        self.write.refused[wallet_id, transfer_id] = REFUSAL

    def _change(
        self,
        wallet: Wallet,
        transfer: Transfer,
        previous: TransferStatus | None,
        made_by: str | None,
        completed_before: int = 0,
    ) -> None:
        event = TransferChanged(
            transfer=transfer,
            previous=previous,
            occurred_at=self._now,
            completed_before=completed_before,
        )
        self.transfers[wallet.id, transfer.id] = transfer
        if transfer.refunds is not None:
            original = self.transfers[wallet.id, transfer.refunds]
            event = count_refund(original, event)
            self.transfers[wallet.id, original.id] = msgspec.structs.replace(
                original, refunded=event.refunded
            )
        self._record(wallet, event, made_by)

    def _record(self, wallet: Wallet | None, event: Event, made_by: str | None) -> Wallet:
        recorded = record(wallet, event, made_by=made_by)
        after = recorded.wallet_after
        self.write.wallets[after.id] = after
        self.write.events.append(recorded)
        return after


def make_answer(version: int = 1, **fields: Any) -> StoredAnswer:
    values: dict[str, Any] = {
        "fingerprint": b"\x00\xffprint",
        "request_id": "r1",
        "refused": False,
        "answer": '{"name":"Žofie €"}'.encode(),
        "version": version,
    }
    return StoredAnswer(**values | fields)
