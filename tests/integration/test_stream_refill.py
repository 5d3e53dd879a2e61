"""A stream that was lost is made again and filled from the journal, in order."""

import asyncio

import nats

from tests.support.published import (
    STREAM,
    first_occurrences,
    versions_by_wallet,
    wait_for_events,
)
from tests.support.write_side import ShardUnderTest, debit, running_shard
from wallet.ids import WalletId


async def delete_stream(url: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().delete_stream(STREAM)
    await client.close()


async def write(shard: ShardUnderTest, wallets: list[WalletId], times: int) -> None:
    for _ in range(times):
        await asyncio.gather(*(shard.ask(wallet_id, debit()) for wallet_id in wallets))


async def test_a_deleted_stream_is_filled_again_before_anything_new(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallets = [await shard.create_wallet() for _ in range(3)]
        await write(shard, wallets, times=5)
        await wait_for_events(nats_url, 18)
        await delete_stream(nats_url)
        await write(shard, wallets, times=5)
        events = await wait_for_events(nats_url, 33)
    by_wallet = versions_by_wallet(first_occurrences(events))
    assert by_wallet == {wallet_id: list(range(1, 12)) for wallet_id in wallets}


async def test_a_stream_lost_while_nobody_ran_is_filled_by_the_next_shard(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet_id = await shard.create_wallet()
        await write(shard, [wallet_id], times=4)
        await wait_for_events(nats_url, 5)
    await delete_stream(nats_url)
    async with running_shard(database, nats_url):
        events = await wait_for_events(nats_url, 5)
    assert versions_by_wallet(first_occurrences(events)) == {wallet_id: [1, 2, 3, 4, 5]}


async def test_a_stream_that_was_never_lost_is_not_filled_twice(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet_id = await shard.create_wallet()
        await write(shard, [wallet_id], times=4)
        await wait_for_events(nats_url, 5)
    async with running_shard(database, nats_url) as successor:
        await write(successor, [wallet_id], times=1)
        events = await wait_for_events(nats_url, 6)
    assert [event.walletversion for event in events] == [1, 2, 3, 4, 5, 6]
