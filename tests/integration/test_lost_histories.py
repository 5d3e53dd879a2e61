"""The database loses commits whose events are on the stream: the projections follow the journal.

(INV-11) A projection that applied a lost event, or meets one later, ends as the journal is.
"""

import asyncpg
import msgspec
import nats
import pytest

from projections import auditor as auditor_module
from projections import store as store_module
from projections.changes import project_events
from projections.store import ProjectionStore, Reason
from tests.support.lost_commits import rewind
from tests.support.published import STREAM, wait_for_events
from tests.support.read_side import differences, running_consumer, until_equal
from tests.support.waiting import until
from tests.support.write_side import debit, running_shard
from wallet.event_codec import CloudEvent
from wallet.ids import WalletId

KEPT = 5
LOST = 6


async def write(database: str, nats_url: str, wallets: list[WalletId], events: int) -> None:
    """Publish ``events`` debits per wallet, by a shard that remembers nothing."""
    async with running_shard(database, nats_url) as shard:
        for _ in range(events):
            for wallet_id in wallets:
                await shard.request(wallet_id, debit("1"))
        await until(lambda: shard.relay.backlog == 0)


async def make_wallets(database: str, nats_url: str, count: int) -> list[WalletId]:
    """Wallets with events up to version ``KEPT + LOST``."""
    async with running_shard(database, nats_url) as shard:
        wallets = [await shard.create_wallet() for _ in range(count)]
    await write(database, nats_url, wallets, KEPT + LOST - 1)
    return wallets


async def forget_consumers(nats_url: str) -> None:
    """Everything on the stream is delivered again."""
    client = await nats.connect(nats_url)
    for former in await client.jetstream().consumers_info(STREAM):
        await client.jetstream().delete_consumer(STREAM, former.name)
    await client.close()


@pytest.mark.parametrize("batch_max", [1, 4, 500])
@pytest.mark.parametrize("after", [1, LOST, LOST + 3])
async def test_lost_events_are_not_applied_by_a_paused_projection(
    database: str, nats_url: str, after: int, batch_max: int
) -> None:
    lost, sound = await make_wallets(database, nats_url, 2)
    await rewind(database, lost, KEPT)
    await write(database, nats_url, [lost, sound], after)
    events = 2 * (KEPT + LOST + after)
    async with running_consumer(database, nats_url, batch_max=batch_max) as consumer:
        await until(lambda: consumer.events == events)
        assert consumer.lost_histories > 0
    assert await differences(database) == []


@pytest.mark.parametrize("events_max", [4, 20_000])
@pytest.mark.parametrize("after", [1, LOST, LOST + 3])
async def test_a_projection_of_a_lost_history_is_taken_anew(
    database: str,
    nats_url: str,
    after: int,
    events_max: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "CATCH_UP_EVENTS_MAX", events_max)
    lost, sound = await make_wallets(database, nats_url, 2)
    async with running_consumer(database, nats_url):
        await until_equal(database)
    await rewind(database, lost, KEPT)
    assert await differences(database), "the projection shows lost transfers here"
    async with running_consumer(database, nats_url) as consumer:
        await write(database, nats_url, [lost, sound], after)
        await until_equal(database)
        assert consumer.lost_histories > 0
        assert consumer.gaps == 0, "the other wallet moves on"
    await forget_consumers(nats_url)
    async with running_consumer(database, nats_url, batch_max=3) as again:
        await until(lambda: again.events == 2 * (KEPT + LOST + after))
    assert await differences(database) == []


async def test_each_group_takes_its_own_wallets_anew(database: str, nats_url: str) -> None:
    wallets = await make_wallets(database, nats_url, 6)
    for wallet_id in wallets[:4]:
        await rewind(database, wallet_id, KEPT)
    await write(database, nats_url, wallets, 2)
    async with (
        running_consumer(database, nats_url, group=0, groups=2, batch_max=5) as one,
        running_consumer(database, nats_url, group=1, groups=2, batch_max=5) as other,
    ):
        await until(lambda: one.events + other.events == 6 * (KEPT + LOST + 2))
    assert await differences(database) == []


async def test_a_wallet_that_the_journal_lost_is_deleted(database: str, nats_url: str) -> None:
    lost, _ = await make_wallets(database, nats_url, 2)
    async with running_consumer(database, nats_url):
        await until_equal(database)
    await rewind(database, lost, 0)
    assert await differences(database)
    await forget_consumers(nats_url)
    async with running_consumer(database, nats_url, batch_max=3) as consumer:
        await until(lambda: consumer.events == 2 * (KEPT + LOST))
    assert await differences(database) == []


async def test_the_auditor_takes_lost_histories_anew(
    database: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditor_module, "WALLETS_MAX", 2)
    wallets = await make_wallets(database, nats_url, 5)
    async with running_consumer(database, nats_url):
        await until_equal(database)
    await rewind(database, wallets[0], 0)
    await rewind(database, wallets[1], KEPT)
    for wallet_id in wallets[2:4]:
        await rewind(database, wallet_id, KEPT)
    await write(database, nats_url, [wallets[2]], LOST)
    await write(database, nats_url, [wallets[3]], LOST + 2)
    async with asyncpg.create_pool(database, min_size=0, max_size=2) as pool:
        auditor = auditor_module.Auditor(pool)
        while auditor.statistics().rounds == 0:
            await auditor.check_next_page()
        assert auditor.statistics().retaken == 4
        assert auditor.statistics().mismatched_wallets == 0
    assert await differences(database) == []


async def test_an_interrupted_retake_is_begun_again(
    database: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CATCH_UP_EVENTS_MAX", 2)
    (lost,) = await make_wallets(database, nats_url, 1)
    async with running_consumer(database, nats_url):
        await until_equal(database)
    await rewind(database, lost, KEPT)
    await write(database, nats_url, [lost], LOST)
    async with asyncpg.create_pool(database, min_size=0, max_size=2) as pool:
        store = ProjectionStore(pool)
        with monkeypatch.context() as interrupted:
            interrupted.setattr("projections.incremental_rebuild._FINISH", "SELECT 1/0, $1, $2")
            with pytest.raises(asyncpg.PostgresError):
                await store.retake(lost)
        events = (await wait_for_events(nats_url, KEPT + 2 * LOST))[-1:]
        (refused,) = await store.project(project_events(events))
        assert refused.reason is Reason.LOST_HISTORY
        await store.repair(refused)
        assert await store.project(project_events(events)) == []
    assert await differences(database) == []


def without_chain(event: CloudEvent, wallet_id: WalletId) -> CloudEvent:
    return msgspec.structs.replace(
        event,
        id=f"{wallet_id}:{event.walletversion}",
        hash=msgspec.UNSET,
        previoushash=msgspec.UNSET,
    )


async def test_events_from_before_the_chain_are_told_apart_by_version(
    database: str, nats_url: str
) -> None:
    (wallet,) = await make_wallets(database, nats_url, 1)
    events = await wait_for_events(nats_url, KEPT + LOST)
    connection = await asyncpg.connect(database)
    await connection.execute(
        "UPDATE wallet_events SET hash = NULL, previous_hash = NULL WHERE version <= $1", KEPT
    )
    await connection.close()
    old = [without_chain(event, wallet) for event in events[:KEPT]]
    async with asyncpg.create_pool(database, min_size=0, max_size=1) as pool:
        store = ProjectionStore(pool)
        assert await store.project(project_events(old[:3])) == []
        assert await store.project(project_events([*old[1:], *events[KEPT : KEPT + 2]])) == []
        assert await store.project(project_events(events)) == []
        # The journal has no hash for the version that this one claims.
        (refused,) = await store.project(project_events(events[:2]))
        assert refused.reason is Reason.LOST_EVENTS
        assert await differences(database) == []
