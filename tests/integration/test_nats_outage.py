"""NATS stops and restarts: writes continue, and every event arrives in order."""

import msgspec

from actors.rpc.messages import FailureCode
from tests.support.databases import outbox_rows, until_outbox_is_empty
from tests.support.mixed_workload import EVENTS_A_ROUND, open_wallets, run_mixed_workload
from tests.support.own_nats import OwnNats
from tests.support.published import versions_by_wallet, wait_for_events
from tests.support.results import body, failed
from tests.support.waiting import until
from tests.support.write_side import LIMITS, RELAY_LIMITS, debit, running_shard


async def test_the_outbox_grows_while_nats_is_away_and_drains_in_order(
    database: str, own_nats: OwnNats
) -> None:
    per_wallet = 1 + 2 * EVENTS_A_ROUND
    async with running_shard(database, own_nats.url) as shard:
        wallets = await open_wallets(shard, 5)
        await run_mixed_workload(shard, wallets, rounds=1)
        await until(lambda: shard.relay.backlog == 0)
        # Rows that are kept after their acknowledgement go back to the backlog with the connection.
        await until_outbox_is_empty(database)

        own_nats.stop()
        await run_mixed_workload(shard, wallets, rounds=1)
        assert shard.relay.backlog == 5 * EVENTS_A_ROUND
        assert await outbox_rows(database) > 0
        await until(lambda: not shard.relay.stream_ready)

        own_nats.start()
        await until(lambda: shard.relay.backlog == 0)
        events = await wait_for_events(own_nats.url, 5 * per_wallet)
        await until_outbox_is_empty(database)
    assert len(events) == 5 * per_wallet, "each once"
    assert versions_by_wallet(events) == {
        wallet: list(range(1, per_wallet + 1)) for wallet in wallets
    }


async def test_events_lost_in_a_power_failure_are_published_again_first(
    database: str, own_nats: OwnNats
) -> None:
    keeping = msgspec.structs.replace(RELAY_LIMITS, outbox_retention_s=60.0)
    async with running_shard(database, own_nats.url, relay_limits=keeping) as shard:
        # A new stream that is filled with events counts as complete only after the retention.
        await until(lambda: shard.relay.stream_ready)
        wallet = await shard.create_wallet()
        await shard.request(wallet, debit("1"))
        await wait_for_events(own_nats.url, 2)
        own_nats.stop()
        own_nats.keep()
        own_nats.start()
        for _ in range(3):
            await shard.request(wallet, debit("1"))
        await wait_for_events(own_nats.url, 5)
        assert shard.relay.backlog == 0

        own_nats.lose_power()
        own_nats.start()
        await shard.request(wallet, debit("1"))
        events = await wait_for_events(own_nats.url, 6)
    assert versions_by_wallet(events) == {wallet: [1, 2, 3, 4, 5, 6]}
    assert await outbox_rows(database) > 0, "no row is deleted too early"


async def test_a_shard_that_starts_without_nats_writes_and_publishes_later(
    database: str, own_nats: OwnNats
) -> None:
    own_nats.stop()
    async with running_shard(database, own_nats.url) as shard:
        wallets = await open_wallets(shard, 2)
        assert shard.relay.backlog == 2
        own_nats.start()
        events = await wait_for_events(own_nats.url, 2)
    assert versions_by_wallet(events) == {wallet: [1] for wallet in wallets}


async def test_an_outbox_that_is_full_refuses_until_nats_is_back(
    database: str, own_nats: OwnNats
) -> None:
    limits = msgspec.structs.replace(LIMITS, outbox_events_max=5)
    own_nats.stop()
    async with running_shard(database, own_nats.url, limits=limits) as shard:
        wallet = await shard.create_wallet()
        for _ in range(4):
            await shard.request(wallet, debit("1"))
        refused = failed(await shard.request(wallet, debit("1")))
        assert (refused.code, refused.applied) == (FailureCode.UNAVAILABLE, "no")
        own_nats.start()
        await until(lambda: shard.relay.backlog == 0)
        after = body(await shard.request(wallet, debit("1")))
    assert after["wallet"] == {
        "version": 6,
        "balance": "5.00",
        "pending_credit": "0.00",
        "pending_debit": "0.00",
    }
