"""A commit response is lost or connections die: the client gets the true outcome."""

import asyncio

import asyncpg

from actors.rpc.messages import Applied
from tests.support.postgres_proxy import proxy_before
from tests.support.results import applied, body
from tests.support.write_side import debit, running_shard


async def events(database: str) -> int:
    connection = await asyncpg.connect(database)
    try:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM wallet_events WHERE transfer_id IS NOT NULL"
        )
    finally:
        await connection.close()
    return count


async def test_a_commit_whose_answer_is_lost_is_applied_once_and_answered(database: str) -> None:
    async with proxy_before(database) as (proxy, through), running_shard(through) as shard:
        wallet_id = await shard.create_wallet()
        proxy.lose_answers = 1
        answer = body(await shard.request(wallet_id, debit("5")))
        assert proxy.lost == 1, "the response was not lost: the test proved nothing"
        assert shard.shard.counts["outcomes_unknown"] == 1
        assert (answer["wallet"]["version"], answer["wallet"]["balance"]) == (2, "5.00")
        after = body(await shard.request(wallet_id, debit("1")))
        assert (after["wallet"]["version"], after["wallet"]["balance"]) == (3, "6.00")
    assert await events(database) == 2


async def test_a_keyed_commit_whose_answer_is_lost_is_no_replay_to_its_client(
    database: str,
) -> None:
    async with proxy_before(database) as (proxy, through), running_shard(through) as shard:
        wallet_id = await shard.create_wallet()
        proxy.lose_answers = 1
        reply = await shard.request(wallet_id, debit("5"), key="k")
        assert proxy.lost == 1
        assert not applied(reply).replayed
    assert await events(database) == 1


async def test_terminated_connections_lose_and_double_nothing(database: str) -> None:
    async with running_shard(database) as shard:
        wallet_id = await shard.create_wallet()

        async def client() -> list[int]:
            replies = [await shard.request(wallet_id, debit("1")) for _ in range(30)]
            return [
                body(reply)["wallet"]["version"] for reply in replies if isinstance(reply, Applied)
            ]

        async def terminate() -> None:
            connection = await asyncpg.connect(database)
            for _ in range(10):
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'wallet-shard' AND datname = current_database()"
                )
            await connection.close()

        versions, *_ = await asyncio.gather(
            asyncio.gather(*(client() for _ in range(4))), terminate()
        )
    acknowledged = sorted(version for one in versions for version in one)
    assert len(acknowledged) == len(set(acknowledged))
    # Every acknowledged command is in the journal; one reported as failed is not.
    assert await events(database) == len(acknowledged)
