"""Rule 2, the rows: wallets and transfers match the journal, and money is conserved."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from verification.facts import Control, JournalEvent, OutboxRow, TransferRow, WalletRow
from verification.violations import Violation, ViolationKind

Journals = Mapping[str, Sequence[JournalEvent]]
"""Events by wallet, in version order."""


def check_wallet_rows(journals: Journals, rows: Iterable[WalletRow]) -> Iterator[Violation]:
    """Every wallet's row equals its last event."""
    unseen = set(journals)
    for row in rows:
        events = journals.get(row.wallet_id)
        unseen.discard(row.wallet_id)
        last = events[-1] if events else None
        control = last_control(events or ())
        if last is None or (last.version, last.after, control) != (
            row.version,
            row.balances,
            row.control,
        ):
            found = f"last event: {last.version} {last.after} {control}" if last else "no events"
            yield Violation(
                kind=ViolationKind.WALLET_ROW_DIFFERS,
                wallet_id=row.wallet_id,
                detail=f"row: {row.version} {row.balances} {row.control}, {found}",
            )
    for wallet_id in sorted(unseen):
        yield Violation(kind=ViolationKind.WALLET_ROW_MISSING, wallet_id=wallet_id, detail="")


def last_control(events: Sequence[JournalEvent]) -> Control:
    """What a wallet may do after ``events``."""
    return next((one.control for one in reversed(events) if one.control is not None), Control())


def transfers_of(
    events: Sequence[JournalEvent], refunds: Iterable[JournalEvent] | None = None
) -> dict[str, TransferRow]:
    """The transfers that a wallet's events result in. ``refunds``: the events of refunds of these
    in order; None: they are among ``events``."""
    rows: dict[str, TransferRow] = {}
    for event in events:
        if not event.transfer_id:
            continue
        before = rows.get(event.transfer_id)
        rows[event.transfer_id] = TransferRow(
            wallet_id=event.wallet_id,
            transfer_id=event.transfer_id,
            type=event.transfer_type,
            status=event.status,
            amount=event.amount,
            created_version=before.created_version if before else event.version,
            reference_id=event.reference_id,
            failure_reason=event.failure_reason,
            expires_at=event.expires_at,
            on_expiry=event.on_expiry,
            part=event.part,
            refunds=event.refunds,
        )
    for event in events if refunds is None else refunds:
        original = rows.get(event.refunds)
        if original is not None:
            rows[event.refunds] = msgspec.structs.replace(original, refunded=event.refunded)
    return rows


def check_transfer_rows(
    journals: Journals, rows: Iterable[TransferRow], refunds: Journals | None = None
) -> Iterator[Violation]:
    """The rows are exactly the transfers of the journal. ``refunds`` as in `transfers_of`."""
    expected = {
        (wallet_id, transfer_id): row
        for wallet_id, events in journals.items()
        for transfer_id, row in transfers_of(
            events, None if refunds is None else refunds[wallet_id]
        ).items()
    }
    for row in rows:
        due = expected.pop((row.wallet_id, row.transfer_id), None)
        if due is None:
            yield _of_transfer(ViolationKind.TRANSFER_ROW_WITHOUT_EVENT, row, "")
        elif due != row:
            yield _of_transfer(ViolationKind.TRANSFER_ROW_DIFFERS, row, f"row {row}, journal {due}")
    for row in expected.values():
        yield _of_transfer(ViolationKind.TRANSFER_ROW_MISSING, row, "")


def check_conservation(
    wallets: Iterable[WalletRow], transfers: Iterable[TransferRow]
) -> Iterator[Violation]:
    """Per currency: balances and holds of all wallets equal what came in minus what went out."""
    currencies: dict[str, str] = {}
    held: defaultdict[str, int] = defaultdict(int)
    for wallet in wallets:
        currencies[wallet.wallet_id] = wallet.currency
        held[wallet.currency] += wallet.balances.balance + wallet.balances.pending_credit
    for transfer in transfers:
        if transfer.completed:
            sign = -1 if transfer.type == "debit" else 1
            held[currencies.get(transfer.wallet_id, "")] += sign * transfer.completed
    for currency, difference in sorted(held.items()):
        if difference:
            yield Violation(
                kind=ViolationKind.MONEY_NOT_CONSERVED,
                wallet_id="*",
                detail=f"{currency}: wallets hold {difference:+} minor units over in - out",
            )


def check_outbox(journals: Journals, rows: Iterable[OutboxRow]) -> Iterator[Violation]:
    """Outbox rows refer to existing events, each at most once."""
    ends: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: (row.wallet_id, row.first_version)):
        events = journals.get(row.wallet_id, ())
        sound = ends.get(row.wallet_id, 0) < row.first_version <= row.last_version
        if not sound or not events or row.last_version > events[-1].version:
            yield Violation(
                kind=ViolationKind.OUTBOX_ROW_UNSOUND, wallet_id=row.wallet_id, detail=str(row)
            )
        ends[row.wallet_id] = row.last_version


def _of_transfer(kind: ViolationKind, row: TransferRow, what: str) -> Violation:
    detail = f"transfer={row.transfer_id} {what}".strip()
    return Violation(kind=kind, wallet_id=row.wallet_id, detail=detail)
