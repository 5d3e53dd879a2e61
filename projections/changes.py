"""Turn a batch of stream events into the projection rows that it changes. Pure.

Events carry the state after them, so it is enough to keep the last event of each wallet and of
each transfer. Within the batch, each event must follow the one before it by hash; the store checks
that the first one follows the stored row, and that the journal has the last one.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from projections.store import (
    BalanceRow,
    ControlRow,
    ProjectionChanges,
    RefundedRow,
    TransferRow,
    WalletRow,
)
from wallet.event_codec import CloudEvent, decode_envelope, event_id
from wallet.events import WALLET_CHANGES, EventType
from wallet.ids import WalletId
from wallet.representation import TransferResultView, WalletView

FORKED: Final = b"\0"
"""Instead of the last hash of a wallet of which the batch has events of two histories: no event
has it, so the store applies nothing of that wallet."""

_wallet: Final = msgspec.json.Decoder(WalletView)
_transfer: Final = msgspec.json.Decoder(TransferResultView)


def project_events(events: Iterable[CloudEvent]) -> ProjectionChanges:
    """The rows after ``events``. Events of a wallet are in version order; duplicates and older
    versions are dropped. A wallet with another event at a version of the batch is `FORKED`.

    Raises:
        msgspec.MsgspecError: an event's data doesn't match its type.
        EventMismatch: an event's data belongs to another wallet or version.
    """
    builder = _ChangeSetBuilder()
    for event in events:
        builder.add(event)
    return ProjectionChanges(
        wallets=list(builder.wallets.values()),
        balances=list(builder.balances.values()),
        transfers=[_transfer_row(*one) for one in builder.transfers.values()],
        controls=list(builder.controls.values()),
        refunded=list(builder.refunded.values()),
    )


class EventMismatch(ValueError):
    """An event contradicts itself or its subject, so this service did not publish it.

    Not an assertion: other clients may publish on the stream.
    """


def decode_message(subject: str, payload: bytes) -> CloudEvent:
    """The event in a stream message.

    Raises:
        EventMismatch: the event doesn't match its subject.
        msgspec.MsgspecError: the payload is not an event.
    """
    event = decode_envelope(payload)
    if not subject.endswith(f".{event.subject}.{event.type}"):
        raise EventMismatch(f"event {event.id} ({event.type}) does not match subject {subject}")
    return event


class _ChangeSetBuilder:
    def __init__(self) -> None:
        self.wallets: dict[WalletId, WalletRow] = {}
        self.balances: dict[WalletId, BalanceRow] = {}
        self.controls: dict[WalletId, ControlRow] = {}
        self.transfers: dict[str, tuple[TransferResultView, int | None]] = {}
        """The last state of each, and the version that created it, unless it is from before."""
        self.refunded: dict[tuple[WalletId, str], RefundedRow] = {}
        self._ids: set[str] = set()
        self._without_hash: set[tuple[WalletId, int]] = set()

    def add(self, event: CloudEvent) -> None:
        if event.walletversion < 1 or event.id != event_id(event):
            raise EventMismatch(
                f"event id {event.id} does not match wallet {event.subject} "
                f"at version {event.walletversion}"
            )
        known = self.balances.get(event.subject)
        if known is not None and event.walletversion <= known.last_version:
            if self._is_another(event) and event.walletversion >= known.first_version:
                known.hash = FORKED
            return  # INV-11: a duplicate in this batch.
        self._ids.add(event.id)
        if not event.hash:
            self._without_hash.add((event.subject, event.walletversion))
        if event.type == EventType.WALLET_CREATED:
            self._add_wallet(_wallet.decode(event.data), event)
        elif event.type == EventType.WALLET_REWOUND:
            wallet = _wallet.decode(event.data)
            _check_identity(event, wallet.id, wallet.version)
            self._add_balances(event, wallet.balance, wallet.pending_debit, wallet.pending_credit)
        elif event.type in WALLET_CHANGES:
            wallet = _wallet.decode(event.data)
            _check_identity(event, wallet.id, wallet.version)
            self._add_balances(event, wallet.balance, wallet.pending_debit, wallet.pending_credit)
            self.controls[wallet.id] = _control_row(wallet)
        else:
            self._add_transfer(_transfer.decode(event.data), event)

    def _is_another(self, event: CloudEvent) -> bool:
        """Whether the batch has another event of the same version.

        Without a hash it may be the same one, as a relay of release 0.1.0 publishes it.
        """
        comparable = event.hash and (event.subject, event.walletversion) not in self._without_hash
        return bool(comparable) and event.id not in self._ids

    def _add_wallet(self, wallet: WalletView, event: CloudEvent) -> None:
        _check_identity(event, wallet.id, wallet.version)
        self.wallets[wallet.id] = WalletRow(
            wallet.id,
            wallet.reference_id,
            wallet.currency,
            wallet.scale,
            wallet.status,
            _json(wallet.metadata),
            wallet.created_at,
        )
        if wallet.overdraft_limit and int(_minor(wallet.overdraft_limit)):
            self.controls[wallet.id] = _control_row(wallet)
        self._add_balances(event, wallet.balance, wallet.pending_debit, wallet.pending_credit)

    def _add_transfer(self, transfer: TransferResultView, event: CloudEvent) -> None:
        wallet_after = transfer.wallet
        _check_identity(event, transfer.wallet_id, wallet_after.version)
        self._add_balances(
            event, wallet_after.balance, wallet_after.pending_debit, wallet_after.pending_credit
        )
        if (known := self.transfers.get(transfer.id)) is not None:
            created_version = known[1]
        else:
            created_version = (
                wallet_after.version if event.previousstatus is msgspec.UNSET else None
            )
        self.transfers[transfer.id] = transfer, created_version
        if transfer.refunds and (shown := transfer.refunded_transfer):
            self.refunded[transfer.wallet_id, transfer.refunds] = RefundedRow(
                transfer.wallet_id,
                transfer.refunds,
                _minor(shown.refunded_amount),
                _minor(shown.refund_pending_amount),
            )

    def _add_balances(
        self, event: CloudEvent, balance: str, pending_debit: str, pending_credit: str
    ) -> None:
        known = self.balances.get(event.subject)
        previous_hash = _bytes(event.previoushash)
        if known is not None and event.walletversion != known.last_version + 1:
            # A gap inside the batch: the range starts after it, and the store detects it.
            self._drop_transfers(event.subject)
            self.controls.pop(event.subject, None)
            known = None
        self.balances[event.subject] = BalanceRow(
            event.subject,
            known.first_version if known is not None else event.walletversion,
            event.walletversion,
            _minor(balance),
            _minor(pending_debit),
            _minor(pending_credit),
            event.time,
            known.previous_hash if known is not None else previous_hash,
            FORKED if known is not None and _forks(known.hash, previous_hash) else _hash(event),
        )

    def _drop_transfers(self, wallet_id: WalletId) -> None:
        """What comes before a gap may be of another history than what comes after it."""
        self.transfers = {
            id: one for id, one in self.transfers.items() if one[0].wallet_id != wallet_id
        }
        self.refunded = {key: one for key, one in self.refunded.items() if key[0] != wallet_id}


def _forks(known: bytes, previous: bytes) -> bool:
    """Whether an event after ``previous`` does not follow the event ``known``.

    An event of before the chain has no hash: only its version is compared.
    """
    return known == FORKED or (known != previous and bool(known) and bool(previous))


def _hash(event: CloudEvent) -> bytes:
    """Empty of an event that was recorded before the chain."""
    return _bytes(event.hash) if event.previoushash else b""


def _bytes(hexadecimal: str | msgspec.UnsetType) -> bytes:
    return bytes.fromhex(hexadecimal) if hexadecimal else b""


def _check_identity(event: CloudEvent, wallet_id: WalletId, version: int) -> None:
    if (wallet_id, version) != (event.subject, event.walletversion):
        raise EventMismatch(
            f"event {event.id} has the data of wallet {wallet_id}, version {version}"
        )


def _transfer_row(transfer: TransferResultView, created_version: int | None) -> TransferRow:
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
        created_version,
        transfer.wallet.version,
        transfer.expires_at or None,
        transfer.on_expiry or None,
        _minor(transfer.completed_amount) if transfer.completed_amount else None,
        transfer.refunds or None,
    )


def _control_row(wallet: WalletView) -> ControlRow:
    return ControlRow(
        wallet.id,
        wallet.status,
        wallet.frozen or None,
        wallet.frozen_reason or None,
        _minor(wallet.overdraft_limit or "0"),
        _json(wallet.metadata),
    )


def _minor(amount: str) -> str:
    """Minor units, as text, of a decimal string that has all of its decimals."""
    return amount.replace(".", "")


def _json(metadata: Mapping[str, str]) -> str | None:
    return msgspec.json.encode(metadata).decode() if metadata else None
