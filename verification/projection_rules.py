"""Rule 6: projections equal the write side once they are drained."""

from collections.abc import Iterable, Iterator

from verification.evidence import TransferRow, WalletRow
from verification.violations import Breach, Violation


def judge_wallet_projections(
    rows: Iterable[WalletRow], projections: Iterable[WalletRow]
) -> Iterator[Violation]:
    """Every wallet's projection is at its version, with its balances."""
    projected = {row.wallet_id: row for row in projections}
    for row in rows:
        yield from judge_wallet_projection(row, projected.pop(row.wallet_id, None))
    for wallet_id in sorted(projected):
        yield Violation(breach=Breach.PROJECTION_UNKNOWN, wallet_id=wallet_id, detail="")


def judge_wallet_projection(row: WalletRow, projected: WalletRow | None) -> Iterator[Violation]:
    """One wallet's projection against its row."""
    if projected is None:
        yield _violation(Breach.PROJECTION_MISSING, row.wallet_id, f"at version {row.version}")
    elif projected.version < row.version:
        yield _violation(
            Breach.PROJECTION_BEHIND, row.wallet_id, f"{projected.version} of {row.version}"
        )
    elif (projected.version, projected.balances) != (row.version, row.balances):
        yield _violation(
            Breach.PROJECTION_DIFFERS,
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
                Breach.PROJECTION_MISSING, row.wallet_id, f"transfer={row.transfer_id}"
            )
        elif found != row:
            yield _violation(
                Breach.PROJECTION_DIFFERS, row.wallet_id, f"projected {found}, write side {row}"
            )
    for wallet_id, transfer_id in sorted(projected):
        yield _violation(Breach.PROJECTION_UNKNOWN, wallet_id, f"transfer={transfer_id}")


def _violation(breach: Breach, wallet_id: str, detail: str) -> Violation:
    return Violation(breach=breach, wallet_id=wallet_id, detail=detail)
