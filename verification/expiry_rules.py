"""Rule 2, expiry: from its time on, only its expiry settles a transfer, and it does so soon."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from verification.facts import ExpiryRow, JournalEvent, TransferRow
from verification.violations import Violation, ViolationKind


def check_time(event: JournalEvent) -> Iterator[Violation]:
    """A settlement came from a client before the transfer's time, or from its expiry after it."""
    if event.occurred_at is None:
        return
    expired = event.failure_reason == "expired"
    if expired and not event.is_late:
        what = f"expired at {event.occurred_at}, due {event.expires_at}"
    elif event.is_late and not event.is_expiry:
        what = f"{event.status} at {event.occurred_at}, but it expired at {event.expires_at}"
    else:
        return
    yield Violation(
        kind=ViolationKind.EXPIRY_WRONG,
        wallet_id=event.wallet_id,
        detail=f"version={event.version} transfer={event.transfer_id} {what}",
    )


def check_expiry_rows(
    transfers: Iterable[TransferRow], rows: Iterable[ExpiryRow]
) -> Iterator[Violation]:
    """There is one row for each pending transfer that expires, and no other."""
    expected = {
        (one.wallet_id, one.transfer_id): one.expires_at
        for one in transfers
        if one.status == "pending" and one.expires_at is not None
    }
    for row in rows:
        due = expected.pop((row.wallet_id, row.transfer_id), None)
        if due != row.expires_at:
            yield Violation(
                kind=ViolationKind.EXPIRY_ROW_UNSOUND,
                wallet_id=row.wallet_id,
                detail=f"transfer={row.transfer_id} row {row.expires_at}, transfer {due}",
            )
    for (wallet_id, transfer_id), due in expected.items():
        yield Violation(
            kind=ViolationKind.EXPIRY_ROW_MISSING,
            wallet_id=wallet_id,
            detail=f"transfer={transfer_id} expires {due}",
        )


def check_overdue(transfers: Iterable[TransferRow], until: datetime) -> Iterator[Violation]:
    """No transfer is pending that expired before ``until``."""
    for one in transfers:
        if one.status == "pending" and one.expires_at is not None and one.expires_at < until:
            yield Violation(
                kind=ViolationKind.HOLD_OVERDUE,
                wallet_id=one.wallet_id,
                detail=f"transfer={one.transfer_id} expired {one.expires_at}",
            )
