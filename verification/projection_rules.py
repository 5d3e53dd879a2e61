"""Rule 6: projections equal the write side once they are drained."""

from collections.abc import Iterable, Iterator, Sequence

from verification.facts import JournalEvent, TransferRow, WalletRow
from verification.row_rules import transfers_of
from verification.violations import Violation, ViolationKind


def judge_wallet_projections(
    rows: Iterable[WalletRow], projections: Iterable[WalletRow]
) -> Iterator[Violation]:
    """Every wallet's projection is at its version, with its balances."""
    projected = {row.wallet_id: row for row in projections}
    for row in rows:
        yield from judge_wallet_projection(row, projected.pop(row.wallet_id, None))
    for wallet_id in sorted(projected):
        yield Violation(kind=ViolationKind.PROJECTION_UNKNOWN, wallet_id=wallet_id, detail="")


def judge_wallet_projection(row: WalletRow, projected: WalletRow | None) -> Iterator[Violation]:
    """One wallet's projection against its row."""
    if projected is None:
        yield _violation(
            ViolationKind.PROJECTION_MISSING, row.wallet_id, f"at version {row.version}"
        )
    elif projected.version < row.version:
        yield _violation(
            ViolationKind.PROJECTION_BEHIND, row.wallet_id, f"{projected.version} of {row.version}"
        )
    elif (projected.version, projected.balances) != (row.version, row.balances):
        yield _violation(
            ViolationKind.PROJECTION_DIFFERS,
            row.wallet_id,
            f"{projected.version} {projected.balances}, write side {row.version} {row.balances}",
        )


def judge_transfer_projections(
    rows: Iterable[TransferRow], projections: Iterable[TransferRow]
) -> Iterator[Violation]:
    """Every transfer's projection equals its row."""
    projected = {(row.wallet_id, row.transfer_id): row for row in projections}
    for row in rows:
        found = projected.pop((row.wallet_id, row.transfer_id), None)
        if found is None:
            yield _violation(
                ViolationKind.PROJECTION_MISSING, row.wallet_id, f"transfer={row.transfer_id}"
            )
        elif found != row:
            yield _violation(
                ViolationKind.PROJECTION_DIFFERS,
                row.wallet_id,
                f"projected {found}, write side {row}",
            )
    for wallet_id, transfer_id in sorted(projected):
        yield _violation(ViolationKind.PROJECTION_UNKNOWN, wallet_id, f"transfer={transfer_id}")


def judge_folded_transfer(
    events: Sequence[JournalEvent], found: TransferRow | None, *, version: int, wallet_version: int
) -> Iterator[Violation]:
    """One transfer's projection while events are still being folded.

    ``events`` are the transfer's own, in order. ``version`` is the projection's: it is what the
    events up to that one left. ``wallet_version`` is how far its wallet's projection is: the
    transfer's may be ahead of that, never behind.
    """
    if found is None:
        if events[0].version <= wallet_version:
            yield _of_transfer(
                ViolationKind.PROJECTION_MISSING, events[0], f"of {events[0].version}"
            )
        return
    folded = [event for event in events if event.version <= version]
    should = transfers_of(folded).get(found.transfer_id)
    if should != found or folded[-1].version != version:
        yield _of_transfer(
            ViolationKind.PROJECTION_DIFFERS, events[0], f"projected {found}, journal {should}"
        )
    elif any(version < event.version <= wallet_version for event in events):
        yield _of_transfer(
            ViolationKind.PROJECTION_BEHIND,
            events[0],
            f"at {version}, its wallet at {wallet_version}",
        )


def _of_transfer(breach: ViolationKind, event: JournalEvent, detail: str) -> Violation:
    return _violation(breach, event.wallet_id, f"transfer={event.transfer_id} {detail}")


def _violation(breach: ViolationKind, wallet_id: str, detail: str) -> Violation:
    return Violation(kind=breach, wallet_id=wallet_id, detail=detail)
