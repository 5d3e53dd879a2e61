"""Reads right after a write are correct although nothing has been projected yet."""

from typing import Any

import asyncpg

from projections.queries import Queries
from projections.rebuild import rebuild
from projections.transfer_list import TransferFilter, TransferPageView
from runtime.settings import Settings
from tests.support.read_side import queries_on
from tests.support.results import body
from tests.support.write_side import credit, debit, running_shard, settle
from wallet.ids import TransferId, WalletId

EVERYTHING = TransferFilter()


async def project(database: str) -> None:
    """Project all events; between two calls the read side does not change."""
    await rebuild(Settings(_env_file=None, database_url=database))


async def page_of(
    queries: Queries, wallet: WalletId, wanted: TransferFilter = EVERYTHING, **options: Any
) -> TransferPageView:
    page = await queries.transfers(wallet, wanted, **{"limit": 200, "cursor": None, **options})
    assert page is not None
    return page


def ids_of(page: TransferPageView) -> list[str]:
    return [item.id for item in page.items]


async def test_a_list_has_a_transfer_that_no_projection_has_seen(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        first = body(await shard.request(wallet, debit("7")))["id"]
        await project(database)
        second = body(await shard.request(wallet, debit("1")))

        behind = await page_of(queries, wallet)
        assert (ids_of(behind), behind.wallet_version) == ([first], 2)
        for fresh in (
            await page_of(queries, wallet, min_version=second["wallet"]["version"]),
            await page_of(queries, wallet, strong=True),
            await page_of(queries, wallet, min_version=99),
        ):
            assert (ids_of(fresh), fresh.wallet_version) == ([second["id"], first], 3)


async def test_an_unprojected_wallets_list_is_not_said_to_be_empty(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        made = body(await shard.request(wallet, debit("7")))["id"]

        page = await page_of(queries, wallet)

    assert (ids_of(page), page.wallet_version) == ([made], 2)


async def test_a_transfer_is_as_fresh_as_its_reader_asks(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        held = TransferId(body(await shard.request(wallet, debit("7", status="pending")))["id"])
        await project(database)
        await shard.request(wallet, settle(held, "completed"))

        behind = await queries.transfer(wallet, held)
        assert behind is not None
        assert behind.transfer is not None
        assert (behind.transfer.status, behind.wallet_version) == ("pending", 2)
        for fresh in (
            await queries.transfer(wallet, held, min_version=3),
            await queries.transfer(wallet, held, strong=True),
        ):
            assert fresh is not None
            assert fresh.transfer is not None
            assert (fresh.transfer.status, fresh.wallet_version) == ("completed", 3)


async def test_a_wallet_found_by_its_reference_is_as_fresh_as_its_reader_asks(
    database: str,
) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet(reference_id="shop-1")
        await project(database)
        await shard.request(wallet, debit("7"))

        behind = await queries.wallet_by_reference("shop-1")
        assert behind is not None
        assert behind.version == 1
        for fresh in (
            await queries.wallet_by_reference("shop-1", min_version=2),
            await queries.wallet_by_reference("shop-1", strong=True),
        ):
            assert fresh is not None
            assert (fresh.version, fresh.balance) == (2, "7.00")


async def test_both_sides_list_the_same_pages(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        await shard.request(wallet, debit("100"))
        held = [
            body(await shard.request(wallet, credit("1", status="pending")))["id"] for _ in range(9)
        ]
        for number, transfer in enumerate(held):
            if number % 3:
                await shard.request(
                    wallet, settle(transfer, "completed" if number % 3 == 1 else "failed")
                )
        await project(database)
        filters = [
            TransferFilter(status=status, type=kind)
            for status in (None, "pending", "completed", "failed")
            for kind in (None, "debit", "credit")
        ]
        for wanted in filters:
            cursor = None
            while True:
                eventual, strong = [
                    await page_of(queries, wallet, wanted, limit=2, cursor=cursor, strong=is_strong)
                    for is_strong in (False, True)
                ]
                assert eventual == strong, wanted
                cursor = strong.next_cursor
                if cursor is None:
                    break


async def test_strong_pages_neither_skip_nor_repeat_while_transfers_arrive(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        made = [
            body(await shard.request(wallet, debit("1", status="pending")))["id"] for _ in range(9)
        ]
        seen: list[str] = []
        cursor, is_strong = None, True
        while True:
            page = await page_of(queries, wallet, limit=2, cursor=cursor, strong=is_strong)
            seen += ids_of(page)
            await shard.request(wallet, debit("1"))
            await shard.request(wallet, settle(made[len(seen) % 9], "completed"))
            cursor, is_strong = page.next_cursor, not is_strong
            await project(database)
            if cursor is None:
                break

    assert seen == made[::-1]


async def test_a_page_never_shows_what_is_newer_than_the_version_it_names(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        made = [body(await shard.request(wallet, debit("1")))["id"] for _ in range(4)]
        await project(database)
        connection = await asyncpg.connect(database)
        try:
            # The state of a projection between a gap in the events and its catch-up.
            await connection.execute(
                "UPDATE wallet_projections SET version = 3 WHERE wallet_id = $1", wallet
            )
            await connection.execute(
                "DELETE FROM transfer_projections WHERE wallet_id = $1 AND created_version = 4",
                wallet,
            )
        finally:
            await connection.close()

        behind = await page_of(queries, wallet)
        fresh = await page_of(queries, wallet, min_version=5)

    assert (ids_of(behind), behind.wallet_version) == (made[1::-1], 3)
    assert (ids_of(fresh), fresh.wallet_version) == (made[::-1], 5)
