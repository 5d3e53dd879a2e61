"""Recovers a wallet whose latest events the journal has lost: what is written instead of them.

First comes `WalletRewound`, so that every consumer hears of it before anything newer. Then, if the
operator wants it, the lost events are applied again, in their order and under their own transfer
ids, wherever the rules allow it on the wallet as it is now. They are new events: their versions,
hashes and balances are new. Their idempotency keys are known by their digests.

Pure: reading and writing is done by `actors.history.postgres_recovery`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from actors.history.ports import LostEvent
from actors.journal.ports import CommitRequest
from wallet.chain import KEY_DIGEST_BYTES, record
from wallet.commands import (
    CloseWallet,
    ControlWallet,
    CreateTransfer,
    CreateWallet,
    FreezeWallet,
    RefundTransfer,
    RequestedExpiry,
    SettleTransfer,
    UnfreezeWallet,
    UpdateWallet,
)
from wallet.control_rules import decide_control
from wallet.event_codec import CloudEvent, decode_envelope
from wallet.events import (
    WALLET_CHANGES,
    Event,
    EventType,
    TransferChanged,
    WalletCreated,
    WalletRewound,
)
from wallet.fold import count_refund
from wallet.ids import TransferId, WalletId
from wallet.money import canonical_amount, canonical_limit, from_minor, to_minor
from wallet.refund_rules import decide_refund
from wallet.refusals import Refusal
from wallet.representation import TransferResultView, WalletChangedView, WalletView
from wallet.rules import (
    TRANSFER_NOT_FOUND,
    decide_creation,
    decide_expiry,
    decide_settlement,
    decide_transfer,
)
from wallet.state import FailureReason, FreezeDirection, Transfer, TransferStatus, Wallet

APPLIED_AGAIN: Final = "applied again"
PRESENT: Final = "in the journal"
GIVEN_UP: Final = "given up"

_wallet_decoder: Final = msgspec.json.Decoder(WalletView)
_changed_decoder: Final = msgspec.json.Decoder(WalletChangedView)
_transfer_decoder: Final = msgspec.json.Decoder(TransferResultView)


class RecoveredKey(msgspec.Struct, frozen=True, kw_only=True):
    """An idempotency key of which only the digest is known, and its answer."""

    key_digest: bytes
    request: bytes
    """The first bytes of the request's fingerprint."""
    answer: str
    version: int


class Recovery(msgspec.Struct, kw_only=True):
    """What is written to recover one wallet."""

    write: CommitRequest
    keys: list[RecoveredKey] = msgspec.field(default_factory=list)
    outcomes: list[str] = msgspec.field(default_factory=list)
    """Of each lost event, in order: one of the constants above, or why it was refused."""


class ForkedWallet(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet in quarantine, as the journal has it."""

    wallet_id: WalletId
    common_version: int
    common_hash: bytes
    lost: Sequence[LostEvent]
    """In version order."""
    wallet: Wallet | None
    """None: the journal has lost even its creation."""
    transfers: Mapping[TransferId, Transfer]
    """Of the lost events' transfers, those that the journal has."""
    reference_taken: bool = False
    """Another wallet has the reference of this one, which is lost."""


def recover_wallet(
    forked: ForkedWallet, *, apply_again: bool, now: Callable[[], datetime]
) -> Recovery:
    """What is to be written for ``forked``. ``apply_again``: the lost events, too.

    A wallet of which even the creation is lost is opened again in any case: clients have its id.
    """
    builder = _RecoveryBuilder(forked, now())
    for event in forked.lost:
        builder.add(event, apply_again=apply_again)
    builder.rewind_if_not_done()
    return builder.recovery


class _RecoveryBuilder:
    def __init__(self, forked: ForkedWallet, now: datetime) -> None:
        self._forked = forked
        self._now = now
        self._wallet = forked.wallet
        self._transfers = dict(forked.transfers)
        self._is_rewound = False
        known = {forked.wallet_id: forked.wallet} if forked.wallet is not None else {}
        self.recovery = Recovery(
            write=CommitRequest(
                now=now,
                expected_versions={one: wallet.version for one, wallet in known.items()},
                expected_hashes={one: wallet.hash for one, wallet in known.items()},
                wallets=dict(known),
                created_wallets=[],
                events=[],
            )
        )

    def add(self, lost: LostEvent, *, apply_again: bool) -> None:
        event = decode_envelope(lost.payload)
        is_creation = event.type == EventType.WALLET_CREATED
        if not is_creation:
            self.rewind_if_not_done()
        if not apply_again and not is_creation:
            self.recovery.outcomes.append(GIVEN_UP)
            return
        decision = self._decide(event)
        if isinstance(decision, Refusal):
            self.recovery.outcomes.append(f"{decision.code}: {decision.detail}")
        elif isinstance(decision, str):
            self.recovery.outcomes.append(decision)
        else:
            self._record(decision, event)
            self.recovery.outcomes.append(APPLIED_AGAIN)

    def rewind_if_not_done(self) -> None:
        """Record `WalletRewound`: after the wallet's creation, before anything else."""
        if self._is_rewound or self._wallet is None:
            return
        self._is_rewound = True
        self._record(
            WalletRewound(
                wallet_id=self._forked.wallet_id,
                common_version=self._forked.common_version,
                common_hash=self._forked.common_hash,
                lost=tuple(one.id for one in self._forked.lost),
                occurred_at=self._now,
            )
        )

    def _decide(self, event: CloudEvent) -> Event | Refusal | str:
        if event.type == EventType.WALLET_REWOUND:
            return GIVEN_UP
        if event.type == EventType.WALLET_CREATED:
            return self._decide_creation(_wallet_decoder.decode(event.data))
        if event.type in WALLET_CHANGES:
            return self._decide_control(event)
        transfer = _transfer_decoder.decode(event.data)
        if event.previousstatus:
            return self._decide_settlement(transfer)
        return self._decide_transfer(transfer)

    def _decide_creation(self, view: WalletView) -> Event | Refusal | str:
        if self._wallet is not None:
            return PRESENT
        command = CreateWallet(
            wallet_id=view.id,
            currency=view.currency,
            scale=view.scale,
            reference_id=view.reference_id,
            metadata=view.metadata,
            overdraft_limit=canonical_limit(view.overdraft_limit or "0"),
        )
        taken = self._forked.reference_taken
        return decide_creation(command, reference_taken=taken, now=self._now)

    def _decide_control(self, event: CloudEvent) -> Event | Refusal | str:
        command = _control_command(event.type, _changed_decoder.decode(event.data))
        decision = decide_control(self._wallet, command, now=self._now)
        return PRESENT if isinstance(decision, Wallet) else decision

    def _decide_transfer(self, view: TransferResultView) -> Event | Refusal | str:
        if view.id in self._transfers:
            return PRESENT
        status: Literal["pending", "completed"] = (
            "pending" if view.status == "pending" else "completed"
        )
        expiry = _requested_expiry(view) if status == "pending" else None
        if view.refunds:
            refund = RefundTransfer(
                transfer_id=view.id,
                refunds=view.refunds,
                status=status,
                amount=canonical_amount(view.amount),
                reference_id=view.reference_id,
                metadata=view.metadata,
                expiry=expiry,
            )
            original = self._transfers.get(view.refunds)
            return decide_refund(self._wallet, original, refund, now=self._now)
        command = CreateTransfer(
            transfer_id=view.id,
            type="debit" if view.type == "debit" else "credit",
            status=status,
            amount=canonical_amount(view.amount),
            reference_id=view.reference_id,
            metadata=view.metadata,
            expiry=expiry,
        )
        # Whatever its time: one that has passed meanwhile is met by the shard's sweep.
        return decide_transfer(self._wallet, command, now=self._now)

    def _decide_settlement(self, view: TransferResultView) -> Event | Refusal | str:
        """A settlement was decided before: it stands, also if its transfer has expired since."""
        transfer = self._transfers.get(view.id)
        if view.failure_reason == FailureReason.EXPIRED:
            return self._decide_expiry(transfer)
        left = _left_to_complete(view, transfer)
        if left is not None and left <= 0 and transfer is not None:
            is_done = view.status == "pending" or transfer.status is not TransferStatus.PENDING
            return PRESENT if is_done else GIVEN_UP
        command = SettleTransfer(
            transfer_id=view.id,
            status="failed" if view.status == "failed" else "completed",
            amount=None if left is None else canonical_amount(from_minor(left, _scale_of(view))),
            final=view.status != "pending",
            reference_id=view.reference_id,
            metadata=view.metadata,
        )
        decision = decide_settlement(self._wallet, transfer, command, now=self._now)
        return PRESENT if isinstance(decision, Transfer) else decision

    def _decide_expiry(self, transfer: Transfer | None) -> Event | Refusal | str:
        if transfer is None:
            return TRANSFER_NOT_FOUND
        assert self._wallet is not None, "a transfer belongs to a wallet"
        if transfer.status is not TransferStatus.PENDING:
            return PRESENT
        if not transfer.is_due(self._now):
            # This clock is behind the one that decided: the shard's sweep does it.
            return GIVEN_UP
        return decide_expiry(self._wallet, transfer, now=self._now)

    def _record(self, decision: Event, source: CloudEvent | None = None) -> None:
        digest = bytes.fromhex((source and source.keydigest) or "")
        if isinstance(decision, TransferChanged) and decision.transfer.refunds is not None:
            original = self._transfers[decision.transfer.refunds]
            decision = count_refund(original, decision)
            self._transfers[original.id] = msgspec.structs.replace(
                original, refunded=decision.refunded
            )
        recorded = record(self._wallet, decision, key_digest=digest)
        write, wallet = self.recovery.write, recorded.wallet_after
        if isinstance(decision, WalletCreated):
            write.created_wallets.append(wallet.id)
        if isinstance(decision, TransferChanged):
            self._transfers[decision.transfer.id] = decision.transfer
        write.events.append(recorded)
        write.wallets[wallet.id] = self._wallet = wallet
        if digest:
            self.recovery.keys.append(
                RecoveredKey(
                    key_digest=digest[:KEY_DIGEST_BYTES],
                    request=digest[KEY_DIGEST_BYTES:],
                    answer=recorded.body.decode(),
                    version=wallet.version,
                )
            )


def _left_to_complete(view: TransferResultView, transfer: Transfer | None) -> int | None:
    """Minor units until as much is completed as ``view`` shows; None: it shows no part."""
    if not view.completed_amount or view.status == "failed":
        return None
    done = transfer.completed_amount if transfer is not None else 0
    return to_minor(canonical_amount(view.completed_amount), _scale_of(view)) - done


def _scale_of(view: TransferResultView) -> int:
    return len(view.amount.partition(".")[2])


def _requested_expiry(view: TransferResultView) -> RequestedExpiry | None:
    if not view.expires_at:
        return None
    return RequestedExpiry(
        at=view.expires_at, action="complete" if view.on_expiry == "complete" else "fail"
    )


def _control_command(type: str, view: WalletChangedView) -> ControlWallet:
    """What leads to the wallet that ``view`` shows."""
    if type == EventType.WALLET_UPDATED:
        return UpdateWallet(
            metadata=view.metadata,
            replace_metadata=True,
            overdraft_limit=canonical_limit(view.overdraft_limit or "0"),
        )
    if type == EventType.WALLET_FROZEN:
        direction = FreezeDirection(view.frozen or FreezeDirection.BOTH)
        return FreezeWallet(direction=direction.value, reason=view.reason)
    if type == EventType.WALLET_UNFROZEN:
        return UnfreezeWallet(reason=view.reason)
    return CloseWallet(reason=view.reason)
