"""A projection that dies while it processes events loses none of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import nats
import pytest

from projections.consumer import ConsumerOptions, ProjectionConsumer
from projections.store import ProjectionChanges, ProjectionStore, RefusedWallet
from tests.support.waiting import stop, until
from tests.support.write_side import debit, running_shard


class Dying(Exception):
    """The process has died."""


class DyingStore(ProjectionStore):
    """Receives a batch and dies before writing any of it."""

    async def project(self, batch: ProjectionChanges) -> list[RefusedWallet]:
        raise Dying


def options(*, group: int = 0, groups: int = 1, batch_max: int = 5) -> ConsumerOptions:
    return ConsumerOptions(
        stream="WALLET_EVENTS",
        group=group,
        groups=groups,
        partitions=4,
        batch_max=batch_max,
        poll_s=0.2,
        ack_wait_s=300.0,
    )


@asynccontextmanager
async def consumer(
    database: str, nats_url: str, store: type[ProjectionStore], options: ConsumerOptions
) -> AsyncIterator[ProjectionConsumer]:
    client = await nats.connect(nats_url)
    pool = await asyncpg.create_pool(database, min_size=0, max_size=2)
    try:
        yield ProjectionConsumer(client=client, store=store(pool), options=options)
    finally:
        await client.close()
        await pool.close()


async def projected_versions(database: str) -> dict[str, int]:
    connection = await asyncpg.connect(database)
    try:
        rows = await connection.fetch("SELECT wallet_id::text, version FROM wallet_projections")
    finally:
        await connection.close()
    return {row[0]: row[1] for row in rows}


async def run_until_projected(
    consumers: list[ProjectionConsumer], database: str, wanted: dict[str, int]
) -> None:
    tasks = [asyncio.create_task(one.run()) for one in consumers]
    try:
        async with asyncio.timeout(20):
            while await projected_versions(database) != wanted:
                for task in tasks:
                    assert not task.done(), task.exception()
    finally:
        await stop(*tasks)


async def written(database: str, nats_url: str, wallets: int) -> dict[str, int]:
    async with running_shard(database, nats_url) as shard:
        ids = [await shard.create_wallet() for _ in range(wallets)]
        for wallet_id in ids:
            await shard.request(wallet_id, debit())
        await until(lambda: shard.relay.backlog == 0)
    return dict.fromkeys(ids, 2)


async def test_a_successor_folds_what_its_predecessor_pulled_and_did_not_fold(
    database: str, nats_url: str
) -> None:
    wanted = await written(database, nats_url, wallets=6)
    async with consumer(database, nats_url, DyingStore, options()) as dying:
        with pytest.raises(Dying):
            await dying.run()
    async with consumer(database, nats_url, ProjectionStore, options()) as successor:
        await run_until_projected([successor], database, wanted)
        assert successor.gaps == 0, "projected from the stream, without catch-up from the journal"


async def test_another_number_of_groups_goes_on_where_the_former_ones_were(
    database: str, nats_url: str
) -> None:
    wanted = await written(database, nats_url, wallets=6)
    async with consumer(database, nats_url, ProjectionStore, options()) as alone:
        await run_until_projected([alone], database, wanted)
    wanted |= await written(database, nats_url, wallets=6)
    halves = [options(group=group, groups=2) for group in range(2)]
    async with (
        consumer(database, nats_url, ProjectionStore, halves[0]) as one,
        consumer(database, nats_url, ProjectionStore, halves[1]) as other,
    ):
        await run_until_projected([one, other], database, wanted)


async def test_two_pullers_of_one_group_skip_nothing(database: str, nats_url: str) -> None:
    wanted = await written(database, nats_url, wallets=20)
    async with (
        consumer(database, nats_url, ProjectionStore, options(batch_max=3)) as one,
        consumer(database, nats_url, ProjectionStore, options(batch_max=3)) as other,
    ):
        await run_until_projected([one, other], database, wanted)
