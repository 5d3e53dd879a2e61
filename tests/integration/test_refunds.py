"""Refunds on Postgres: reads of both sides, rebuilds, old consumers, two owners, the checker."""

import asyncio
from io import StringIO
from typing import Any

import asyncpg
import pytest
from rich.console import Console

from actors.rpc.messages import Applied, Refused, RequestResult
from projections.wallet_rebuild import retake_wallet
from tests.integration.test_expiry import _project_as_before
from tests.support.databases import execute
from tests.support.ids import new_id
from tests.support.read_side import read_api, running_consumer, until_equal
from tests.support.results import body, refused
from tests.support.write_side import ShardUnderTest, credit, debit, running_shard, settle
from verification.runner import Options, run
from wallet.commands import RefundTransfer
from wallet.ids import TransferId, WalletId


async def refund(
    shard: ShardUnderTest, wallet: WalletId, of: str, amount: str | None = None, **fields: Any
) -> RequestResult:
    command = RefundTransfer(
        transfer_id=TransferId(new_id()),
        refunds=TransferId(of),
        amount=amount,
        **{"status": "completed"} | fields,
    )
    return await shard.request(wallet, command, key=new_id())


async def refunded_wallet(shard: ShardUnderTest) -> tuple[WalletId, str, dict[str, str]]:
    """A wallet, a credit of 8.00 in it, and its refunds: 1.00, a pending 4.00 with a part of 0.50
    completed, one that failed; and a refund of another transfer."""
    wallet = await shard.create_wallet()
    money = body(await shard.request(wallet, debit("10")))["id"]
    out = body(await shard.request(wallet, credit("8")))["id"]
    made = {
        "done": body(await refund(shard, wallet, out, "1"))["id"],
        "held": body(await refund(shard, wallet, out, "4", status="pending"))["id"],
        "failed": body(await refund(shard, wallet, out, "2", status="pending"))["id"],
    }
    part = settle(made["held"], "completed", amount="0.5", final=False)
    body(await shard.request(wallet, part, key="part"))
    body(await shard.request(wallet, settle(made["failed"], "failed")))
    body(await refund(shard, wallet, money, "0.25"))
    return wallet, out, made


async def test_every_read_shows_refunds(database: str, nats_url: str) -> None:
    async with running_shard(database, nats_url) as shard, read_api(database) as api:
        wallet, out, made = await refunded_wallet(shard)
        base = f"/v1/wallet/{wallet}"
        async with running_consumer(database, nats_url):
            await until_equal(database)
        for fresh in ({}, {"consistency": "strong"}):
            paid = (await api.get(f"{base}/transfers/{out}", params=fresh)).json()
            assert (paid["refunded_amount"], paid["refund_pending_amount"]) == ("1.50", "3.50")
            held = (await api.get(f"{base}/transfers/{made['held']}", params=fresh)).json()
            assert (held["refunds"], held["pending_amount"]) == (out, "3.50")
            assert "refunded_amount" not in held
            listed = (await api.get(f"{base}/transfers", params=fresh | {"refunds": out})).json()
            assert [one["id"] for one in listed["items"]] == [
                made["failed"],
                made["held"],
                made["done"],
            ]
            query = fresh | {"refunds": out, "status": "pending"}
            pending = (await api.get(f"{base}/transfers", params=query)).json()
            assert [one["id"] for one in pending["items"]] == [made["held"]]
        wrong = await api.get(f"{base}/transfers", params={"refunds": "none"})
        assert wrong.status_code == 422
        entries = (await api.get(f"{base}/statement")).json()["entries"]
        assert [one.get("refunds") for one in entries].count(out) == 5
        await shard.request(wallet, settle(made["held"], "completed"))
        query = {"consistency": "strong"}
        paid = (await api.get(f"{base}/transfers/{out}", params=query)).json()
        assert paid["refunded_amount"] == "5.00"
        assert "refund_pending_amount" not in paid
    assert await violations(database) == []


async def test_a_rebuild_and_an_old_consumer_show_refunds(database: str, nats_url: str) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet, _, _ = await refunded_wallet(shard)
        async with running_consumer(database, nats_url):
            await until_equal(database)
    connection = await asyncpg.connect(database)
    projected = (
        "SELECT array_agg((transfer_id, refunds, refunded_amount, refund_pending_amount) "
        "ORDER BY transfer_id) FROM transfer_projections"
    )
    try:
        expected = await connection.fetchval(projected)
        assert sum(one[2] is not None for one in expected) == 2
        for events_max in (1, 3, 100):
            await connection.execute(
                "UPDATE transfer_projections SET refunds = NULL, refunded_amount = 1, "
                "refund_pending_amount = NULL"
            )
            await retake_wallet(connection, wallet, events_max=events_max)
            assert await connection.fetchval(projected) == expected
        await connection.execute("TRUNCATE wallet_projections, transfer_projections")
        for parameters in (46, 42, 36):
            await _project_as_before(connection, parameters)
            assert await connection.fetchval(projected) == expected
    finally:
        await connection.close()


async def test_two_owners_never_refund_more_than_was_completed(database: str) -> None:
    """INV-16 when refunds race, pending ones too, from two processes that both own the wallet."""
    async with running_shard(database) as one, running_shard(database) as other:
        wallet = await one.create_wallet()
        await one.request(wallet, debit("10"))
        out = body(await one.request(wallet, credit("10")))["id"]
        answers = await asyncio.gather(
            *(
                refund(
                    (one, other)[number % 2],
                    wallet,
                    out,
                    "1.50",
                    status=("pending", "completed")[number % 3 == 0],
                )
                for number in range(16)
            )
        )
        assert sum(isinstance(answer, Applied) for answer in answers) == 6
        codes = {refused(answer).refusal.code for answer in answers if isinstance(answer, Refused)}
        assert codes == {"amount_exceeds_refundable"}
        rest = body(await refund(other, wallet, out))
        assert rest["amount"] == "1.00"
    assert await violations(database) == []


DAMAGES = {
    "UPDATE transfers SET refunds = NULL WHERE refunds IS NOT NULL": "transfer_row_differs",
    "UPDATE transfers SET refunded_amount = 1 WHERE refunded_amount = 150": "transfer_row_differs",
    "UPDATE transfers SET refund_pending_amount = 0 WHERE refund_pending_amount = 350": (
        "transfer_row_differs"
    ),
    "UPDATE wallet_events SET refunds = NULL WHERE refunds IS NOT NULL": "event_hash_wrong",
    "UPDATE wallet_events SET refunded_amount = 2 WHERE refunded_amount = 100": "refund_wrong",
    "UPDATE wallet_events SET amount = 801, balance = balance + 701 WHERE version = 4": (
        "refund_wrong"
    ),
    "UPDATE transfer_projections SET refunds = NULL": "projection_differs",
    "UPDATE transfer_projections SET refunded_amount = 1": "projection_differs",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_checker_finds_damaged_refunds(database: str, nats_url: str, damage: str) -> None:
    async with running_shard(database, nats_url) as shard:
        await refunded_wallet(shard)
        async with running_consumer(database, nats_url):
            await until_equal(database)
    assert await violations(database) == []
    execute(database, damage)
    assert DAMAGES[damage] in await violations(database)


async def violations(database: str) -> list[str]:
    """The kinds of violations that `wallet verify` finds; projections may be behind."""
    report = StringIO()
    console = Console(file=report, width=400)
    await asyncio.to_thread(run, Options(database_url=database), console, console)
    found = report.getvalue()
    return sorted(kind for kind in {*DAMAGES.values(), "fold_broken"} if kind in found)
