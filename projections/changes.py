"""Folding a batch of stream events to the rows that it changes. Pure.

Events carry the state after them, so folding is keeping the last one of each wallet and of each
transfer; that they connect to what is stored is checked by version where they are stored.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from projections.store import (
    BalanceRow,
    ProjectionChanges,
    SettlementRow,
    TransferRow,
    WalletRow,
)
from wallet.event_codec import CloudEvent, decode_envelope
from wallet.events import EventType
from wallet.ids import WalletId
from wallet.representation import TransferResultView, WalletView

_wallet: Final = msgspec.json.Decoder(WalletView)
_transfer: Final = msgspec.json.Decoder(TransferResultView)


def project_events(events: Iterable[CloudEvent]) -> ProjectionChanges:
    """The rows that ``events`` leave. Per wallet the events come in version order; a repeated
    or older one is dropped.

    Raises:
        msgspec.MsgspecError: an event's data is not what its type says.
        EventMismatch: an event's data is another wallet's, or another version's.
    """
    folding = _ChangeSetBuilder()
    for event in events:
        folding.add(event)
    return ProjectionChanges(
        wallets=list(folding.wallets.values()),
        balances=list(folding.balances.values()),
        transfers=list(folding.transfers.values()),
        settlements=list(folding.settlements.values()),
    )


class EventMismatch(ValueError):
    """An event contradicts itself, or the subject that it came under: it is none of ours.

    No assertion: others can publish on the stream, too.
    """


def decode_message(subject: str, payload: bytes) -> CloudEvent:
    """The event of a stream message.

    Raises:
        EventMismatch: it is not what its subject says.
        msgspec.MsgspecError: it is no event.
    """
    event = decode_envelope(payload)
    if not subject.endswith(f".{event.subject}.{event.type}"):
        raise EventMismatch(f"the subject {subject} is not of {event.id}, {event.type}")
    return event


class _ChangeSetBuilder:
    def __init__(self) -> None:
        self.wallets: dict[WalletId, WalletRow] = {}
        self.balances: dict[WalletId, BalanceRow] = {}
        self.transfers: dict[str, TransferRow] = {}
        self.settlements: dict[str, SettlementRow] = {}

    def add(self, event: CloudEvent) -> None:
        if event.walletversion < 1 or event.id != f"{event.subject}:{event.walletversion}":
            raise EventMismatch(f"{event.id} is not {event.subject} at {event.walletversion}")
        known = self.balances.get(event.subject)
        if known is not None and event.walletversion <= known.last_version:
            return  # INV-11: seen already in this batch.
        if event.type == EventType.WALLET_CREATED:
            self._add_wallet(_wallet.decode(event.data), event)
        else:
            self._add_transfer(_transfer.decode(event.data), event)

    def _add_wallet(self, wallet: WalletView, event: CloudEvent) -> None:
        _require_same(event, wallet.id, wallet.version)
        self.wallets[wallet.id] = WalletRow(
            wallet.id,
            wallet.reference_id,
            wallet.currency,
            wallet.scale,
            wallet.status,
            _json(wallet.metadata),
            wallet.created_at,
        )
        self._add_balances(event, wallet.balance, wallet.pending_debit, wallet.pending_credit)

    def _add_transfer(self, transfer: TransferResultView, event: CloudEvent) -> None:
        version = event.walletversion
        after = transfer.wallet
        _require_same(event, transfer.wallet_id, after.version)
        self._add_balances(event, after.balance, after.pending_debit, after.pending_credit)
        row = self.transfers.get(transfer.id)
        if row is not None:
            row.status = transfer.status
            row.reference_id = transfer.reference_id
            row.metadata = _json(transfer.metadata)
            row.failure_reason = transfer.failure_reason
            row.settled_at = transfer.settled_at
            row.version = version
        elif event.previousstatus is msgspec.UNSET:
            self.transfers[transfer.id] = _new_transfer(transfer, version)
        else:
            self.settlements[transfer.id] = _settlement(transfer, version)

    def _add_balances(
        self, event: CloudEvent, balance: str, pending_debit: str, pending_credit: str
    ) -> None:
        known = self.balances.get(event.subject)
        connects = known is not None and event.walletversion == known.last_version + 1
        self.balances[event.subject] = BalanceRow(
            event.subject,
            # After a jump inside the batch only what follows it connects; the store sees the gap.
            known.first_version if known is not None and connects else event.walletversion,
            event.walletversion,
            _minor(balance),
            _minor(pending_debit),
            _minor(pending_credit),
            event.time,
        )


def _require_same(event: CloudEvent, wallet_id: WalletId, version: int) -> None:
    if (wallet_id, version) != (event.subject, event.walletversion):
        raise EventMismatch(f"{event.id} has the data of {wallet_id} at {version}")


def _new_transfer(transfer: TransferResultView, version: int) -> TransferRow:
    return TransferRow(
        transfer.wallet_id,
        transfer.id,
        transfer.type,
        transfer.status,
        _minor(transfer.amount),
        transfer.reference_id,
        _json(transfer.metadata),
        transfer.failure_reason,
        transfer.created_at,
        transfer.settled_at,
        version,
        version,
    )


def _settlement(transfer: TransferResultView, version: int) -> SettlementRow:
    return SettlementRow(
        transfer.wallet_id,
        transfer.id,
        transfer.status,
        transfer.reference_id,
        _json(transfer.metadata),
        transfer.failure_reason,
        transfer.settled_at,
        version,
    )


def _minor(amount: str) -> str:
    """Minor units of a decimal string that has all of its decimals."""
    return amount.replace(".", "")


def _json(metadata: Mapping[str, str]) -> str | None:
    return msgspec.json.encode(metadata).decode() if metadata else None
