"""Transfers that expire, on real Postgres: the sweep, two owners, old consumers, the checker."""

import asyncio
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import asyncpg
import pytest
from rich.console import Console

from actors.rpc.messages import RequestResult
from projections.wallet_rebuild import retake_wallet
from tests.support.databases import execute
from tests.support.read_side import running_consumer, until_equal
from tests.support.results import applied, body
from tests.support.waiting import until_true
from tests.support.write_side import ShardUnderTest, credit, debit, running_shard, settle
from verification.runner import Options, run
from wallet.commands import CreateTransfer, RequestedExpiry
from wallet.ids import WalletId

_OVERDUE = "UPDATE {table} SET expires_at = expires_at - interval '1 hour'"


def hold(seconds: float, action: Any = "fail", amount: str = "1") -> CreateTransfer:
    """A pending credit; its time is given by the test's clock, which is the shard's."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    made = credit(amount, status="pending", expiry=RequestedExpiry(at=at, action=action))
    assert made.expiry is not None
    return made


async def counted(database: str, sql: str, *arguments: object) -> int:
    connection = await asyncpg.connect(database)
    try:
        count: int = await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()
    return count


async def left(database: str) -> int:
    return await counted(database, "SELECT count(*) FROM transfer_expiries")


async def holding(shard: ShardUnderTest, count: int, seconds: float) -> WalletId:
    wallet = await shard.create_wallet()
    applied(await shard.request(wallet, debit(str(count))))
    holds = [hold(seconds, "complete" if number % 2 else "fail") for number in range(count)]
    replies: list[RequestResult] = await asyncio.gather(
        *(shard.request(wallet, one) for one in holds)
    )
    assert all(applied(one) for one in replies)
    return wallet


async def completed_in_part(shard: ShardUnderTest, wallet: WalletId) -> str:
    """A hold of 5.00 of which 0.01 was completed, and one that goes on; the first one's id."""
    held: str = body(await shard.request(wallet, debit("5", status="pending")))["id"]
    applied(await shard.request(wallet, settle(held, "completed", amount="0.01")))
    going_on: str = body(await shard.request(wallet, debit("1", status="pending")))["id"]
    for part in ("0.02", "0.03"):
        command = settle(going_on, "completed", amount=part, final=False)
        applied(await shard.request(wallet, command, key=part))
    return held


async def test_a_shard_expires_all_that_is_due_and_projections_follow(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url, expires=True) as shard:
        wallet = await holding(shard, 300, 1.5)
        kept = body(await shard.request(wallet, debit("1", status="pending")))["id"]
        async with running_consumer(database, nats_url):
            await until_true(lambda: _is_empty(database))
            answer = body(await shard.request(wallet, settle(kept, "completed")))
            await until_equal(database)
    # Half of 300 came back, one debit came in.
    assert answer["wallet"]["balance"] == "151.00"
    shown = await counted(
        database,
        "SELECT count(*) FROM transfer_projections p JOIN transfers t "
        "ON t.id = p.transfer_id AND (t.status, t.failure_reason, t.expires_at, t.on_expiry) "
        "IS NOT DISTINCT FROM (p.status, p.failure_reason, p.expires_at, p.on_expiry)",
    )
    assert shown == 302
    assert await violations(database) == []


async def _is_empty(database: str) -> bool:
    return await left(database) == 0


async def test_two_owners_expire_each_hold_once(database: str) -> None:
    async with (
        running_shard(database, expires=True) as one,
        running_shard(database, expires=True) as other,
    ):
        wallet = await holding(one, 40, 1.2)
        await holding(other, 40, 1.2)
        await until_true(lambda: _is_empty(database))
        balance = body(await other.request(wallet, debit("1")))["wallet"]["balance"]
    assert balance == "21.00"
    events = await counted(
        database, "SELECT count(*) FROM wallet_events WHERE previous_status IS NOT NULL"
    )
    assert events == 80
    assert await violations(database) == []


async def test_a_rebuild_and_an_old_consumer_show_when_transfers_expire(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet = await holding(shard, 3, 3_600)
        await completed_in_part(shard, wallet)
        async with running_consumer(database, nats_url):
            await until_equal(database)
    connection = await asyncpg.connect(database)
    projected = (
        "SELECT array_agg((transfer_id, expires_at, on_expiry, completed_amount) "
        "ORDER BY transfer_id) FROM "
    )
    try:
        expected = await connection.fetchval(f"{projected} transfer_projections")
        assert len(expected) == 6
        for events_max in (1, 100):
            await connection.execute(
                "UPDATE transfer_projections SET expires_at = NULL, completed_amount = NULL"
            )
            await retake_wallet(connection, wallet, events_max=events_max)
            assert await connection.fetchval(f"{projected} transfer_projections") == expected
        # As a consumer of the release before: its call has no expiries.
        await connection.execute("TRUNCATE wallet_projections, transfer_projections")
        for parameters in (42, 36):
            await _project_as_before(connection, parameters)
            assert await connection.fetchval(f"{projected} transfer_projections") == expected
    finally:
        await connection.close()


async def _project_as_before(connection: asyncpg.Connection, parameters: int) -> None:
    """Insert the transfers as that release's consumer does; its wallet stays as it is."""
    rows = await connection.fetch(
        "SELECT wallet_id, id, type, status, amount::text, reference_id, metadata::text, "
        "failure_reason, created_at, settled_at, created_version, created_version FROM transfers"
    )
    columns: list[Any] = [[] for _ in range(parameters)]
    # After the columns of new wallets and of changed ones.
    for number, column in enumerate(zip(*(tuple(row) for row in rows), strict=True), start=16):
        columns[number] = list(column)
    arguments = ", ".join(f"${number}" for number in range(1, parameters + 1))
    await connection.execute("TRUNCATE transfer_projections")
    await connection.fetch(f"SELECT project_batch({arguments})", *columns)


DAMAGES = {
    "DELETE FROM transfer_expiries": "expiry_row_missing",
    "UPDATE transfer_expiries SET expires_at = expires_at + interval '1 s'": "expiry_row_unsound",
    "INSERT INTO transfer_expiries SELECT wallet_id, gen_random_uuid(), now() "
    "FROM transfer_expiries LIMIT 1": "expiry_row_unsound",
    "UPDATE transfers SET on_expiry = 'complete' WHERE on_expiry = 'fail'": "transfer_row_differs",
    "UPDATE wallet_events SET expires_at = NULL": "event_hash_wrong",
    "UPDATE wallet_events SET completed_amount = 2 WHERE completed_amount = 1": "fold_broken",
    "UPDATE wallet_events SET completed_before = 1 WHERE completed_before = 2": "fold_broken",
    "UPDATE transfers SET settled_amount = NULL": "transfer_row_differs",
    "UPDATE transfer_projections SET completed_amount = NULL": "projection_differs",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_checker_finds_damaged_holds(database: str, nats_url: str, damage: str) -> None:
    async with running_shard(database, nats_url) as shard:
        await completed_in_part(shard, await holding(shard, 2, 3_600))
        async with running_consumer(database, nats_url):
            await until_equal(database)
    assert await violations(database) == []
    execute(database, damage)
    assert DAMAGES[damage] in await violations(database)


async def test_the_checker_finds_holds_that_nobody_expires(database: str) -> None:
    async with running_shard(database) as shard:
        await holding(shard, 2, 1_800)
    for table in ("transfers", "transfer_expiries", "wallet_events"):
        execute(database, _OVERDUE.format(table=table))
    assert "hold_overdue" in await violations(database)


async def violations(database: str) -> list[str]:
    """The kinds of violations that `wallet verify` finds; projections may be behind."""
    report = StringIO()
    console = Console(file=report, width=400)
    await asyncio.to_thread(run, Options(database_url=database), console, console)
    found = report.getvalue()
    kinds = {*DAMAGES.values(), "hold_overdue", "expiry_wrong", "version_repeated"}
    return sorted(kind for kind in kinds if kind in found)
