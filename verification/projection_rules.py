"""Rule 6: projections equal the write side once they have caught up."""

from collections.abc import Iterable, Iterator, Sequence

from verification.facts import JournalEvent, TransferRow, WalletRow
from verification.row_rules import transfers_of
from verification.violations import Violation, ViolationKind


def check_wallet_projections(
    rows: Iterable[WalletRow], projections: Iterable[WalletRow]
) -> Iterator[Violation]:
    """Every wallet's projection is at its version, with its balances."""
    projected = {row.wallet_id: row for row in projections}
    for row in rows:
        yield from check_wallet_projection(row, projected.pop(row.wallet_id, None))
    for wallet_id in sorted(projected):
        yield Violation(kind=ViolationKind.PROJECTION_UNKNOWN, wallet_id=wallet_id, detail="")


def check_wallet_projection(row: WalletRow, projected: WalletRow | None) -> Iterator[Violation]:
    """One wallet's projection against its row."""
    if projected is None:
        yield _violation(
            ViolationKind.PROJECTION_MISSING, row.wallet_id, f"at version {row.version}"
        )
    elif projected.version < row.version:
        yield _violation(
            ViolationKind.PROJECTION_BEHIND, row.wallet_id, f"{projected.version} of {row.version}"
        )
    elif (projected.version, projected.balances, projected.control) != (
        row.version,
        row.balances,
        row.control,
    ):
        yield _violation(
            ViolationKind.PROJECTION_DIFFERS,
            row.wallet_id,
            f"{projected.version} {projected.balances} {projected.control}, "
            f"write side {row.version} {row.balances} {row.control}",
        )


def check_transfer_projections(
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


def check_transfer_projection(
    events: Sequence[JournalEvent],
    found: TransferRow | None,
    *,
    version: int,
    wallet_version: int,
    refunds: Sequence[JournalEvent] = (),
) -> Iterator[Violation]:
    """One transfer's projection while events are still being applied.

    ``events`` are the transfer's own, in order. ``version`` is the projection's: it must equal the
    result of the events up to it. ``wallet_version`` is the version of its wallet's projection:
    the transfer's may be ahead of that, never behind. ``refunds`` are the events of its refunds,
    which are applied with the wallet.
    """
    if found is None:
        if events[0].version <= wallet_version:
            yield _of_transfer(
                ViolationKind.PROJECTION_MISSING, events[0], f"of {events[0].version}"
            )
        return
    applied = [event for event in events if event.version <= version]
    refunded = [event for event in refunds if event.version <= wallet_version]
    expected = transfers_of(applied, refunded).get(found.transfer_id)
    if expected != found or applied[-1].version != version:
        yield _of_transfer(
            ViolationKind.PROJECTION_DIFFERS, events[0], f"projected {found}, journal {expected}"
        )
    elif any(version < event.version <= wallet_version for event in events):
        yield _of_transfer(
            ViolationKind.PROJECTION_BEHIND,
            events[0],
            f"at {version}, its wallet at {wallet_version}",
        )


def _of_transfer(kind: ViolationKind, event: JournalEvent, detail: str) -> Violation:
    return _violation(kind, event.wallet_id, f"transfer={event.transfer_id} {detail}")


def _violation(kind: ViolationKind, wallet_id: str, detail: str) -> Violation:
    return Violation(kind=kind, wallet_id=wallet_id, detail=detail)
