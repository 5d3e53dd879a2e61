"""Holds by the hundred thousand, straight into the journal: over HTTP they take too long.

The rules' own events, hash chain and all, in the journal's own batches; so `wallet verify` passes.
Two things that the service would do are done here: projections are caught up from the journal, and
rows of the outbox are deleted. The stream lacks these events.
"""

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from actors.journal.ports import CommitRequest, ReadSet
from actors.journal.postgres import CONNECTION_SETTINGS, PostgresJournal
from actors.journal.postgres_connection import ReconnectingConnection
from tests.support.ids import new_id
from wallet.chain import record
from wallet.events import TransferChanged
from wallet.ids import TransferId, WalletId
from wallet.state import Expiry, Transfer, TransferStatus, TransferType, Wallet

_PROCESSES: Final = 2
_AMOUNT: Final = 100
_CATCH_UP: Final = "SELECT catch_up($1::uuid, $2)"
_CATCH_UP_EVENTS: Final = 20_000


class HoldBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Pending debits of a wallet: ``count`` of them, due from ``first_due`` on, evenly."""

    wallet_id: str
    first_due: datetime
    interval_s: float
    count: int


def seed(database_url: str, batches: Sequence[HoldBatch]) -> None:
    """Commit ``batches``. The wallets exist, and nobody else writes to them."""
    by_wallet: dict[str, list[HoldBatch]] = {}
    for batch in batches:
        by_wallet.setdefault(batch.wallet_id, []).append(batch)
    wallets = list(by_wallet)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        parts = [
            pool.submit(_seed, database_url, [by_wallet[one] for one in wallets[n::_PROCESSES]])
            for n in range(_PROCESSES)
        ]
        for part in parts:
            part.result()


def _seed(database_url: str, wallets: list[list[HoldBatch]]) -> None:
    """A process's share: the batches of each of its wallets."""
    asyncio.run(_seed_wallets(database_url, wallets))


async def _seed_wallets(database_url: str, wallets: list[list[HoldBatch]]) -> None:
    connection = ReconnectingConnection(
        database_url,
        statement_timeout_s=60.0,
        connect_timeout_s=10.0,
        settings={**CONNECTION_SETTINGS, "synchronous_commit": "off"},
    )
    journal = PostgresJournal(connection)
    plain = await asyncpg.connect(database_url)
    try:
        for batches in wallets:
            wallet_id = WalletId(batches[0].wallet_id)
            wallet = (await journal.load(ReadSet(wallets={wallet_id}))).wallets[wallet_id]
            for batch in batches:
                wallet = await _commit(journal, wallet, batch)
            # What was just committed: the wallet's creation is the service's own row.
            await plain.execute(
                "DELETE FROM outbox WHERE wallet_id = $1::uuid AND first_version > 1", wallet_id
            )
            while await plain.fetchval(_CATCH_UP, wallet_id, _CATCH_UP_EVENTS):
                pass
    finally:
        await plain.close()
        await connection.close()


async def _commit(journal: PostgresJournal, wallet: Wallet, batch: HoldBatch) -> Wallet:
    """The wallet after ``batch``."""
    now = datetime.now(UTC)
    request = CommitRequest(
        now=now,
        expected_versions={wallet.id: wallet.version},
        expected_hashes={wallet.id: wallet.hash},
        wallets={},
        created_wallets=[],
        events=[],
    )
    for number in range(batch.count):
        due = batch.first_due + timedelta(seconds=number * batch.interval_s)
        held = _hold(wallet, Expiry(due), now)
        recorded = record(wallet, TransferChanged(transfer=held, previous=None, occurred_at=now))
        request.events.append(recorded)
        wallet = recorded.wallet_after
    request.wallets[wallet.id] = wallet
    await journal.commit(request)
    return wallet


def _hold(wallet: Wallet, expiry: Expiry, now: datetime) -> Transfer:
    return Transfer(
        id=TransferId(new_id()),
        type=TransferType.DEBIT,
        status=TransferStatus.PENDING,
        amount=_AMOUNT,
        created_version=wallet.version + 1,
        created_at=now,
        expiry=expiry,
    )
