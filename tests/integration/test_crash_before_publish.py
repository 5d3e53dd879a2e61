"""Committed events reach the stream once and in order, also after a crash before publishing."""

import asyncio

from tests.support.databases import outbox_rows, until_outbox_is_empty
from tests.support.published import first_occurrences, versions_by_wallet, wait_for_events
from tests.support.write_side import ShardUnderTest, debit, running_shard
from wallet.ids import WalletId


async def write(shard: ShardUnderTest, wallets: list[WalletId], times: int) -> None:
    for _ in range(times):
        await asyncio.gather(*(shard.request(wallet_id, debit()) for wallet_id in wallets))


async def test_a_successor_publishes_what_a_crashed_shard_committed(
    database: str, nats_url: str
) -> None:
    async with running_shard(database) as crashed:  # Its relay publishes nothing.
        wallets = [await crashed.create_wallet() for _ in range(3)]
        await write(crashed, wallets, times=5)
    assert await outbox_rows(database) == 18
    async with running_shard(database, nats_url) as successor:
        await write(successor, wallets, times=5)
        events = await wait_for_events(nats_url, 33)
        await until_outbox_is_empty(database)
    assert len(events) == 33, "each once"
    assert versions_by_wallet(events) == {wallet_id: list(range(1, 12)) for wallet_id in wallets}


async def test_two_owners_that_write_and_publish_at_once_keep_each_wallets_order(
    database: str, nats_url: str
) -> None:
    async with (
        running_shard(database, nats_url) as one,
        running_shard(database, nats_url) as other,
    ):
        wallets = [await one.create_wallet() for _ in range(3)]
        await asyncio.gather(
            *(write(owner, wallets, times=10) for owner in (one, other) for _ in range(2))
        )
        events = await wait_for_events(nats_url, 3 * 41)
        await until_outbox_is_empty(database)
    by_wallet = versions_by_wallet(first_occurrences(events))
    assert by_wallet == {wallet_id: list(range(1, 42)) for wallet_id in wallets}


async def test_an_idle_wallets_events_are_found_by_the_sweep_alone(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url):
        async with running_shard(database) as crashed:
            wallet_id = await crashed.create_wallet()
            await write(crashed, [wallet_id], times=2)
        events = await wait_for_events(nats_url, 3)
    assert versions_by_wallet(events) == {wallet_id: [1, 2, 3]}
