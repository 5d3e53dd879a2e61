"""The read side converges with the write side despite repeated, lost or late events."""

import asyncio

import asyncpg
import nats
import pytest

from projections import auditor as auditor_module
from projections import incremental_rebuild as pieces_module
from projections import rebuild as rebuild_module
from projections import store as store_module
from projections.rebuild import rebuild
from runtime.settings import Settings
from tests.support.mixed_workload import EVENTS_A_ROUND, open_wallets, run_mixed_workload
from tests.support.published import STREAM, events_on_stream, wait_for_events
from tests.support.read_side import differences, running_consumer, until_equal
from tests.support.waiting import until
from tests.support.write_side import debit, running_shard
from wallet.ids import WalletId


def settings(database: str) -> Settings:
    return Settings(_env_file=None, database_url=database)


async def execute(database: str, statement: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def published(database: str, nats_url: str, *, wallets: int = 6) -> list[WalletId]:
    """Wallets with a mixed workload; all events are on the stream, none is projected."""
    async with running_shard(database, nats_url) as shard:
        ids = await open_wallets(shard, wallets)
        await run_mixed_workload(shard, ids, rounds=2)
        await wait_for_events(nats_url, wallets * (1 + 2 * EVENTS_A_ROUND))
    return ids


async def lose(nats_url: str, wanted: set[tuple[str, int]]) -> None:
    """Delete events from the stream, by wallet and version."""
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    for sequence, event in enumerate(await events_on_stream(nats_url), start=1):
        if (event.subject, event.walletversion) in wanted:
            await jetstream.delete_msg(STREAM, sequence)
    await client.close()


async def test_what_a_shard_writes_is_projected_while_it_writes(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        await shard.create_wallet()  # creates the stream
        async with running_consumer(database, nats_url, batch_max=7) as consumer:
            wallets = await open_wallets(shard, 8)
            await run_mixed_workload(shard, wallets)
            await until_equal(database)
            assert consumer.gaps == 0
            await until(lambda: consumer.pending == 0)


async def test_folding_everything_again_changes_nothing(database: str, nats_url: str) -> None:
    await published(database, nats_url)
    events = len(await events_on_stream(nats_url))
    async with running_consumer(database, nats_url) as first:
        await until_equal(database)
        await until(lambda: first.events == events)
    client = await nats.connect(nats_url)
    for former in await client.jetstream().consumers_info(STREAM):
        await client.jetstream().delete_consumer(STREAM, former.name)
    await client.close()
    async with running_consumer(database, nats_url, batch_max=3) as again:
        await until(lambda: again.events == events)
        assert again.gaps == 0
    assert await differences(database) == []


async def test_events_that_the_stream_lost_are_taken_from_the_journal(
    database: str, nats_url: str
) -> None:
    wallets = await published(database, nats_url)
    # A creation, a pending transfer (its settlement remains), a middle event, and several in a row.
    await lose(
        nats_url,
        {
            (wallets[0], 1),
            (wallets[1], 3),
            (wallets[2], 10),
            *((wallets[3], version) for version in range(1, 12)),
        },
    )
    async with running_consumer(database, nats_url, batch_max=20) as consumer:
        await until_equal(database)
        assert consumer.gaps >= 4


async def test_a_lost_last_event_is_made_up_for_by_the_next_one(
    database: str, nats_url: str
) -> None:
    wallets = await published(database, nats_url, wallets=2)
    last = 1 + 2 * EVENTS_A_ROUND
    await lose(nats_url, {(wallets[0], last)})
    async with running_consumer(database, nats_url) as consumer:
        await until(lambda: consumer.events == 2 * last - 1)
        behind = await differences(database)
        assert behind, "the projection must lag here"
        assert all(wallets[0] in difference for difference in behind)
        async with running_shard(database, nats_url) as shard:
            await shard.request(wallets[0], debit("1"))
            await until_equal(database)


async def test_a_long_gap_is_closed_in_portions(
    database: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CATCH_UP_EVENTS_MAX", 4)
    wallets = await published(database, nats_url, wallets=2)
    last = 1 + 2 * EVENTS_A_ROUND
    await lose(nats_url, {(wallets[0], version) for version in range(2, last)})
    async with running_consumer(database, nats_url):
        await until_equal(database)


# -- rebuilding --------------------------------------------------------------------------------

CORRUPTIONS = (
    "UPDATE wallet_projections SET balance = balance + 1",
    "UPDATE wallet_projections SET version = version + 100",
    "DELETE FROM wallet_projections",
    "UPDATE transfer_projections SET status = 'pending', version = version + 100",
    "DELETE FROM transfer_projections",
    "INSERT INTO transfer_projections SELECT gen_random_uuid(), transfer_id, type, status, amount, "
    "reference_id, metadata, failure_reason, created_at, settled_at, created_version, version "
    "FROM transfer_projections LIMIT 5",
)


async def test_a_rebuild_repairs_whatever_is_wrong(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "CATCH_UP_EVENTS_MAX", 5)
    monkeypatch.setattr(rebuild_module, "_PAGE", 2)
    async with running_shard(database) as shard:
        wallets = await open_wallets(shard, 5)
        await run_mixed_workload(shard, wallets, rounds=1)
    reported: list[int] = []
    assert await rebuild(settings(database), reported.append) == 5
    assert reported == [2, 4, 5]
    assert await differences(database) == []
    for corruption in CORRUPTIONS:
        await execute(database, corruption)
        assert await differences(database), corruption
        await rebuild(settings(database))
        assert await differences(database) == [], corruption


async def test_a_rebuild_in_pieces_shows_everything_meanwhile(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "CATCH_UP_EVENTS_MAX", 5)
    async with running_shard(database) as shard:
        (wallet,) = await open_wallets(shard, 1)
        await run_mixed_workload(shard, [wallet], rounds=4)
    await rebuild(settings(database))
    await execute(database, CORRUPTIONS[0])
    reader = await asyncpg.connect(database)
    transfers = await reader.fetchval("SELECT count(*) FROM transfer_projections")
    replace_next = pieces_module._Pieces.replace_next
    seen: list[int] = []

    async def watched(pieces: pieces_module._Pieces) -> bool:
        before = pieces._done
        more = await replace_next(pieces)
        assert pieces._done - before <= 5
        assert await reader.fetchval("SELECT count(*) FROM transfer_projections") == transfers
        seen.append(pieces._done)
        return more

    monkeypatch.setattr(pieces_module._Pieces, "replace_next", watched)
    await rebuild(settings(database))
    await reader.close()
    assert len(seen) == 12, "57 events"
    assert await differences(database) == []


async def test_a_projection_that_lacks_an_event_for_long_is_flagged(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_shard(database) as shard:
        wallets = await open_wallets(shard, 3)
        await run_mixed_workload(shard, wallets, rounds=1)
    await rebuild(settings(database))
    await execute(
        database,
        "UPDATE wallet_projections p SET (version, balance, pending_debit, pending_credit) = ("
        "SELECT version, balance, pending_debit, pending_credit FROM wallet_events e "
        f"WHERE e.wallet_id = p.wallet_id AND e.version = 11) WHERE wallet_id = '{wallets[0]}'",
    )
    await execute(database, f"DELETE FROM wallet_projections WHERE wallet_id = '{wallets[1]}'")
    pool = await asyncpg.create_pool(database, min_size=0, max_size=1)
    auditor = auditor_module.Auditor(pool)
    await auditor.check_next_page()
    assert auditor.statistics().standing_still == 0, "it may still arrive"
    monkeypatch.setattr(auditor_module, "STANDS_STILL_S", 0.0)
    await auditor.check_next_page()
    assert (auditor.statistics().standing_still, auditor.statistics().mismatched_wallets) == (2, 0)
    # It has applied what no consumer will.
    await auditor.check_next_page()
    assert auditor.statistics().standing_still == 0
    await pool.close()


@pytest.mark.parametrize("events_max", [60, 20_000])
async def test_a_rebuild_while_the_service_writes_and_folds_ends_equal(
    database: str, nats_url: str, events_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "CATCH_UP_EVENTS_MAX", events_max)
    async with running_shard(database, nats_url) as shard:
        wallets = await open_wallets(shard, 6)
        async with running_consumer(database, nats_url, batch_max=10):
            done = asyncio.Event()

            async def write() -> int:
                rounds = 0
                while not done.is_set():
                    await run_mixed_workload(shard, wallets, rounds=1)
                    rounds += 1
                return rounds

            writing = asyncio.create_task(write())
            for corruption in CORRUPTIONS[:4]:
                await execute(database, corruption)
                await rebuild(settings(database))
            done.set()
            assert await writing > 0, "no concurrent access happened: the test proved nothing"
            await rebuild(settings(database))
            await until_equal(database)
