"""A database that lost commits: noticed before anything is written, reported, and recovered."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any

import asyncpg
import msgspec
import pytest
from rich.console import Console

from actors.history.postgres_recovery import forked_wallets, lost_events, resolve
from actors.rpc.messages import Applied, Failure, FailureCode, Refused
from tests.support import databases
from tests.support.databases import until_outbox_is_empty
from tests.support.published import wait_for_events
from tests.support.read_side import running_consumer, until_equal
from tests.support.results import applied
from tests.support.write_side import ShardUnderTest, credit, debit, running_shard, settle
from verification.runner import Options, run
from wallet.chain import GENESIS
from wallet.events import EventType
from wallet.ids import WalletId


@pytest.fixture
def snapshot(database: str) -> Iterator[Any]:
    """Copies the database: as it is now, on the same server, with an identity of its own."""
    made: list[str] = []

    def copy() -> str:
        name = f"{database.rpartition('/')[2]}_snapshot_{len(made)}"
        original = database.rpartition("/")[2]
        databases.execute(_server(database), f"CREATE DATABASE {name} TEMPLATE {original}")
        made.append(name)
        return databases.with_database(database, name)

    yield copy
    for name in made:
        databases.execute(_server(database), f"DROP DATABASE {name} WITH (FORCE)")


def _server(database: str) -> str:
    return databases.with_database(database, "postgres")


@asynccontextmanager
async def shard_on(database: str, nats_url: str) -> AsyncIterator[ShardUnderTest]:
    async with running_shard(database, nats_url, checks_history=True) as shard:
        yield shard
        await until_outbox_is_empty(database)


@asynccontextmanager
async def connected(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


async def pay(shard: ShardUnderTest, wallet: WalletId, *amounts: str) -> list[str]:
    """Debits in order; returns the transfers' ids."""
    return [applied(await shard.request(wallet, debit(amount))).id for amount in amounts]


def failure(reply: object) -> tuple[FailureCode, str]:
    assert isinstance(reply, Failure)
    return reply.code, reply.applied


async def balance_of(database: str, wallet: WalletId) -> int:
    async with connected(database) as connection:
        balance = await connection.fetchval("SELECT balance FROM wallets WHERE id = $1", wallet)
        return int(balance)


async def test_only_wallets_that_lost_writes_are_quarantined(
    database: str, nats_url: str, snapshot: Any
) -> None:
    async with shard_on(database, nats_url) as shard:
        kept, forked = await shard.create_wallet(), await shard.create_wallet()
        await pay(shard, kept, "1", "2")
        await pay(shard, forked, "3")
    earlier = snapshot()
    async with shard_on(database, nats_url) as shard:
        await pay(shard, forked, "4", "5")
        lost_wallet = await shard.create_wallet()

    async with shard_on(earlier, nats_url) as shard:
        for wallet in (forked, lost_wallet):
            reply = await shard.request(wallet, debit("9"))
            assert failure(reply) == (FailureCode.HISTORY_FORKED, "no")
        again = await shard.request(forked, debit("9"), attempt=2)
        assert failure(again) == (FailureCode.HISTORY_FORKED, "unknown")
        await pay(shard, kept, "6")
    async with connected(earlier) as connection:
        assert set(await forked_wallets(connection)) == {forked, lost_wallet}
        found = await lost_events(connection)
        assert [(one.wallet_id, one.version) for one in found] == sorted(
            [(forked, 3), (forked, 4), (lost_wallet, 1)]
        )
    assert await balance_of(earlier, forked) == 300
    assert await balance_of(earlier, kept) == 900


async def test_replay_applies_the_lost_events_again_under_their_ids(
    database: str, nats_url: str, snapshot: Any
) -> None:
    async with shard_on(database, nats_url) as shard:
        wallet = await shard.create_wallet()
        await pay(shard, wallet, "10")
    earlier = snapshot()
    async with shard_on(database, nats_url) as shard:
        with_key = applied(await shard.request(wallet, debit("4"), key="k"))
        held = applied(await shard.request(wallet, credit("5", status="pending")))
        applied(await shard.request(wallet, settle(held.id, "completed")))
        lost_wallet = await shard.create_wallet(reference_id="r")
    before = await balance_of(database, wallet)

    async with shard_on(earlier, nats_url) as shard:
        await shard.request(wallet, debit("9"))
        async with connected(earlier) as connection:
            for forked in await forked_wallets(connection):
                outcomes = await resolve(connection, forked, apply_again=True)
                assert set(outcomes) == {"applied again"}
            assert await forked_wallets(connection) == []
            ids = await connection.fetch(
                "SELECT id::text FROM transfers WHERE wallet_id = $1", wallet
            )
        assert {with_key.id, held.id} < {row[0] for row in ids}
        assert await balance_of(earlier, wallet) == before
        # The wallets can be written again, and the key that was lost is recognised.
        await pay(shard, wallet, "1")
        await pay(shard, lost_wallet, "1")
        repeated = await shard.request(wallet, debit("4"), key="k")
        assert isinstance(repeated, Applied)
        assert (repeated.id, repeated.replayed) == (with_key.id, True)
        other = await shard.request(wallet, debit("5"), key="k")
        assert isinstance(other, Refused)


async def test_consumers_hear_of_the_fork_before_anything_newer(
    database: str, nats_url: str, snapshot: Any
) -> None:
    async with shard_on(database, nats_url) as shard:
        wallet = await shard.create_wallet()
        await pay(shard, wallet, "1")
    earlier = snapshot()
    async with shard_on(database, nats_url) as shard:
        await pay(shard, wallet, "2", "3")
    async with shard_on(earlier, nats_url) as shard:
        await shard.request(wallet, debit("9"))
        async with connected(earlier) as connection:
            await resolve(connection, wallet, apply_again=False)
        await pay(shard, wallet, "7")
    events = await wait_for_events(nats_url, 6)
    assert [event.walletversion for event in events] == [1, 2, 3, 4, 3, 4]
    common, *lost = events[1:4]
    rewound, newer = events[4:]
    assert rewound.type == EventType.WALLET_REWOUND
    assert rewound.previoushash == common.hash
    reported = msgspec.json.decode(rewound.data)
    assert (reported["common_version"], reported["common_hash"]) == (2, common.hash)
    assert reported["lost"] == [event.id for event in lost]
    assert newer.previoushash == rewound.hash


@pytest.mark.parametrize("apply_again", [True, False])
async def test_after_a_recovery_projections_and_checker_agree(
    database: str, nats_url: str, snapshot: Any, apply_again: bool
) -> None:
    async with shard_on(database, nats_url) as shard:
        wallets = [await shard.create_wallet(reference_id=f"r{n}") for n in range(3)]
        for wallet in wallets:
            await pay(shard, wallet, "1", "2")
    earlier = snapshot()
    async with shard_on(database, nats_url) as shard:
        await pay(shard, wallets[0], "3", "4", "5")
        held = applied(await shard.request(wallets[1], credit("2", status="pending")))
        applied(await shard.request(wallets[1], settle(held.id, "failed")))
        await shard.create_wallet()
    # The projection was paused all the time: it meets both histories in one go.
    async with shard_on(earlier, nats_url) as shard:
        await shard.request(wallets[0], debit("9"))
        async with connected(earlier) as connection:
            for forked in await forked_wallets(connection):
                await resolve(connection, forked, apply_again=apply_again)
        for wallet in wallets:
            await pay(shard, wallet, "6")
    assert any("stream" in line for line in await check_of(database, nats_url)), "it sees loss"
    async with running_consumer(earlier, nats_url):
        await until_equal(earlier)
    assert await check_of(earlier, nats_url) == []


async def check_of(database: str, nats_url: str) -> list[str]:
    """What the checker finds in the database and on the stream."""
    output = StringIO()
    options = Options(
        database_url=database, nats_url=nats_url, stream="WALLET_EVENTS", lag_max_s=0.0
    )
    code = await asyncio.to_thread(run, options, Console(file=output), Console(file=output))
    return [] if code == 0 else output.getvalue().splitlines()


async def test_a_lost_wallet_is_opened_again_even_if_the_loss_is_accepted(
    database: str, nats_url: str, snapshot: Any
) -> None:
    async with shard_on(database, nats_url) as shard:
        await shard.create_wallet()
    earlier = snapshot()
    async with shard_on(database, nats_url) as shard:
        wallet = await shard.create_wallet()
        await pay(shard, wallet, "2")
    async with shard_on(earlier, nats_url) as shard:
        assert failure(await shard.request(wallet, debit())) == (FailureCode.HISTORY_FORKED, "no")
        async with connected(earlier) as connection:
            outcomes = await resolve(connection, wallet, apply_again=False)
            hashes = await connection.fetch(
                "SELECT version, type, previous_hash FROM wallet_events WHERE wallet_id = $1 "
                "ORDER BY version",
                wallet,
            )
        assert outcomes == ["applied again", "given up"]
        assert [(row[0], row[1]) for row in hashes] == [
            (1, "wallet.created"),
            (2, "wallet.rewound"),
        ]
        assert hashes[0][2] == GENESIS
        await pay(shard, wallet, "1")
    assert await balance_of(earlier, wallet) == 100


async def test_what_the_rules_refuse_now_is_named_and_not_applied(
    database: str, nats_url: str, snapshot: Any
) -> None:
    async with shard_on(database, nats_url) as shard:
        wallet = await shard.create_wallet()
    earlier = snapshot()
    async with shard_on(database, nats_url) as shard:
        await pay(shard, wallet, "2")
        applied(await shard.request(wallet, credit("2")))
    async with shard_on(earlier, nats_url) as shard:
        await shard.request(wallet, debit())
        async with connected(earlier) as connection:
            # The debit before it was never on the stream.
            await connection.execute("DELETE FROM lost_events WHERE version = 2")
            (outcome,) = await resolve(connection, wallet, apply_again=True)
        assert outcome.startswith("insufficient_funds: ")
    assert await balance_of(earlier, wallet) == 0


async def test_two_shards_that_notice_at_once_quarantine_once(
    database: str, nats_url: str, snapshot: Any
) -> None:
    async with shard_on(database, nats_url) as shard:
        wallets = [await shard.create_wallet() for _ in range(10)]
    earlier = snapshot()
    async with shard_on(database, nats_url) as shard:
        for wallet in wallets[5:]:
            await pay(shard, wallet, "1")
    async with shard_on(earlier, nats_url) as one, shard_on(earlier, nats_url) as other:

        async def eventually(shard: ShardUnderTest, wallet: WalletId) -> object:
            # While one shard compares, the other answers that nothing was applied.
            while True:
                reply = await shard.request(wallet, debit("1"))
                if not isinstance(reply, Failure) or reply.code is not FailureCode.UNAVAILABLE:
                    return reply
                assert reply.applied == "no"

        replies = await asyncio.gather(
            *(eventually(shard, wallet) for shard in (one, other) for wallet in wallets)
        )
    forked = [isinstance(reply, Failure) for reply in replies]
    assert forked == ([False] * 5 + [True] * 5) * 2


async def test_an_unknown_database_is_not_written_without_the_stream(
    database: str, nats_url: str, snapshot: Any
) -> None:
    async with shard_on(database, nats_url) as shard:
        wallet = await shard.create_wallet()
    unknown = snapshot()
    async with running_shard(unknown, "nats://127.0.0.1:1", checks_history=True) as shard:
        reply = await shard.request(wallet, debit())
    assert failure(reply) == (FailureCode.UNAVAILABLE, "no")
    assert await balance_of(unknown, wallet) == 0
