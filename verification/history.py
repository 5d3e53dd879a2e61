"""Check a history of client calls against Postgres.

A history is a file with one `ClientCall` per line, as JSON. It is held in memory, with the journals
of the wallets that it names: this is for test runs that record their history.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from verification import rows
from verification.checker import check_client_history
from verification.fact_index import FactIndex, reported_state_of
from verification.facts import ClientCall, Facts
from verification.violations import Violation

_WALLETS: Final = f"""{rows.WALLET} WHERE id = ANY ($1::uuid[])
    OR id IN (SELECT wallet_id FROM wallet_references WHERE reference_id = ANY ($2::text[]))
"""

_RECOVERED_KEYS: Final = "SELECT key_digest FROM recovered_keys"

_KEYS: Final = """
SELECT wallet_id::text, key, refused, answer, version FROM idempotency_keys
WHERE wallet_id = ANY ($1::uuid[]) OR key = ANY ($2::text[])
"""

_decoder: Final = msgspec.json.Decoder(ClientCall)


def read_history(path: Path) -> list[ClientCall]:
    """
    Raises:
        OSError: the file can't be read.
        msgspec.MsgspecError: a line is not a `ClientCall`.
    """
    with path.open("rb") as lines:
        return [_decoder.decode(line) for line in lines if line.strip()]


async def check_history(
    connection: asyncpg.Connection, history: list[ClientCall]
) -> Iterator[Violation]:
    """Every violation of the rules that need a history. The service must be idle."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        index = FactIndex(await _facts(connection, history))
    return check_client_history(index)


async def _facts(connection: asyncpg.Connection, history: list[ClientCall]) -> Facts:
    operation_ids = sorted(
        {one.operation_id for one in history if one.operation == "create_wallet"}
    )
    found = await connection.fetch(_WALLETS, sorted(_wallets_named(history)), operation_ids)
    wallets = [rows.wallet_from_row(row).row for row in found]
    ids = [wallet.wallet_id for wallet in wallets]
    creations = sorted({one.key for one in history if one.operation == "create_wallet"} - {""})
    return Facts(
        history=history,
        wallets=wallets,
        transfers=[],
        journal=[rows.event_from_row(row) for row in await connection.fetch(rows.EVENTS_OF, ids)],
        keys=[rows.key_from_row(row) for row in await connection.fetch(_KEYS, ids, creations)],
        recovered_keys=frozenset(row[0] for row in await connection.fetch(_RECOVERED_KEYS)),
    )


def _wallets_named(history: Iterable[ClientCall]) -> set[str]:
    named = set()
    for call in history:
        if call.wallet_id:
            named.add(call.wallet_id)
        elif call.outcome == "acknowledged" and (reported := reported_state_of(call)) is not None:
            named.add(reported.wallet_id)
    return named
