"""`wallet recover`: what the database lost, and what becomes of it."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from actors.history.ports import LostEvent
from actors.history.postgres_recovery import forked_wallets, lost_events, resolve
from deploy.local.errors import StackError
from runtime.postgres.connect import CONNECT_ERRORS, connect
from wallet.ids import WalletId

_CONNECT_TIMEOUT_S: Final = 10.0

_ROWS_MAX: Final = 50
"""Lost events that are printed; a file has all of them."""


async def recover(
    database_url: str,
    console: Console,
    *,
    wallet_id: WalletId | None,
    output: Path | None,
    apply_again: bool | None,
) -> None:
    """List the lost events; then resolve their wallets, if ``apply_again`` is not None.

    ``apply_again``: apply them again where the rules allow it, or give them up.

    Raises:
        StackError: the database is not reachable, or ``output`` exists.
    """
    try:
        connection = await connect(database_url, timeout_s=_CONNECT_TIMEOUT_S)
    except CONNECT_ERRORS as failure:
        raise StackError(f"The database can't be reached: {failure}") from failure
    try:
        wallets = await forked_wallets(connection, wallet_id)
        if apply_again is not None:
            for number, forked in enumerate(wallets, 1):
                outcomes = await resolve(connection, forked, apply_again=apply_again)
                console.print(f"{number} of {len(wallets)}: wallet {forked}, {_summary(outcomes)}")
        lost = await lost_events(connection, wallet_id)
    finally:
        await connection.close()
    if output is not None:
        _write(lost, output)
    _print(lost, console)
    if apply_again is None and wallets:
        console.print(
            f"{len(wallets)} wallets are in quarantine and can't be written. Apply their lost "
            "events again with `wallet recover --replay`, or give them up with "
            "`wallet recover --accept-loss`."
        )


def _summary(outcomes: Sequence[str]) -> str:
    counted = Counter(outcome.partition(":")[0] for outcome in outcomes)
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items()))


def _print(lost: Sequence[LostEvent], console: Console) -> None:
    if not lost:
        console.print("The database has lost nothing that the stream still has.")
        return
    table = Table("WALLET", "VERSION", "EVENT", "OUTCOME", box=None, pad_edge=False)
    for one in lost[:_ROWS_MAX]:
        event = json.loads(one.payload)
        table.add_row(one.wallet_id, str(one.version), event["type"], one.outcome or "open")
    console.print(table)
    if len(lost) > _ROWS_MAX:
        console.print(f"… and {len(lost) - _ROWS_MAX} more: write them to a file with --output.")


def _write(lost: Sequence[LostEvent], output: Path) -> None:
    """One JSON object per line: the event, where it was, and its outcome."""
    try:
        with output.open("x", encoding="utf-8") as file:
            for one in lost:
                file.write(json.dumps(_line(one)) + "\n")
    except FileExistsError as failure:
        raise StackError(f"{output} exists. Name a new file.") from failure


def _line(lost: LostEvent) -> dict[str, Any]:
    return {
        "wallet_id": lost.wallet_id,
        "version": lost.version,
        "found_at": lost.found_at.isoformat(),
        "outcome": lost.outcome,
        "event": json.loads(lost.payload),
    }
