"""Reads: as fresh as requested, and pages without skipped or repeated rows."""

from typing import Any

import pytest

from deploy.local.ports import free_port
from projections.queries import (
    FoundTransfer,
    Queries,
)
from projections.rebuild import rebuild
from projections.transfer_list import CursorError, TransferFilter
from runtime.postgres.reads import ReadUnavailable
from runtime.settings import Settings
from tests.support.ids import new_id
from tests.support.read_side import queries_on
from tests.support.results import body
from tests.support.write_side import credit, debit, running_shard, settle
from wallet.ids import TransferId, WalletId

EVERYTHING = TransferFilter()


async def project(database: str) -> None:
    """Project all events; between two calls the read side does not change."""
    await rebuild(Settings(_env_file=None, database_url=database))


async def all_pages(
    queries: Queries, wallet: WalletId, wanted: TransferFilter = EVERYTHING, *, limit: int
) -> list[str]:
    """Ids of every transfer, page by page."""
    ids: list[str] = []
    cursor = None
    while True:
        page = await queries.transfers(wallet, wanted, limit=limit, cursor=cursor)
        assert page is not None
        assert len(page.items) <= limit
        ids += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return ids


async def test_a_read_is_as_fresh_as_it_asks_to_be(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        await project(database)
        await shard.request(wallet, debit("7"))  # Not projected yet.

        eventual = await queries.wallet(wallet)
        assert eventual is not None
        assert (eventual.version, eventual.balance) == (1, "0.00")
        for fresh in (
            await queries.wallet(wallet, min_version=2),
            await queries.wallet(wallet, strong=True),
            await queries.wallet(wallet, min_version=99),
        ):
            assert fresh is not None
            assert (fresh.version, fresh.balance) == (2, "7.00")

        await project(database)
        assert await queries.wallet(wallet) == await queries.wallet(wallet, strong=True)


async def test_every_answered_write_can_be_read_at_its_version(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        for number in range(10):
            written = body(await shard.request(wallet, debit("1")))["wallet"]
            if number % 3 == 0:
                await project(database)
            read = await queries.wallet(wallet, min_version=written["version"])
            assert read is not None
            assert read.version >= written["version"]
            assert read.balance == written["balance"]


async def test_what_is_not_projected_yet_is_found_all_the_same(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet(reference_id="shop-1", metadata={"a": "b"})
        made = body(await shard.request(wallet, debit("7", status="pending")))
        before = (
            await queries.wallet(wallet),
            await queries.wallet_by_reference("shop-1"),
            await queries.transfer(wallet, TransferId(made["id"])),
        )
        await project(database)
        after = (
            await queries.wallet(wallet),
            await queries.wallet_by_reference("shop-1"),
            await queries.transfer(wallet, TransferId(made["id"])),
        )
    assert before == after
    assert None not in before


async def test_what_does_not_exist_is_none(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        one, other = [await shard.create_wallet() for _ in range(2)]
        made = TransferId(body(await shard.request(one, debit("7")))["id"])
        await project(database)
        nowhere = WalletId(new_id())
        assert await queries.wallet(nowhere) is None
        assert await queries.wallet(nowhere, strong=True) is None
        assert await queries.wallet_by_reference("nobody") is None
        assert (await queries.transfer(other, made)) == FoundTransfer(
            transfer=None, wallet_version=1
        )
        assert await queries.transfer(one, TransferId(new_id())) == FoundTransfer(
            transfer=None, wallet_version=2
        )
        assert await queries.transfers(nowhere, EVERYTHING, limit=5, cursor=None) is None
        empty = await queries.transfers(other, EVERYTHING, limit=5, cursor=None)
        assert empty is not None
        assert (empty.items, empty.next_cursor) == ([], None)


# -- pages -------------------------------------------------------------------------------------


async def test_pages_hold_everything_once_newest_first(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        made = [body(await shard.request(wallet, debit("1")))["id"] for _ in range(12)]
        await project(database)
        for limit in (1, 4, 6, 11, 12, 13, 200):
            assert await all_pages(queries, wallet, limit=limit) == made[::-1], limit


async def test_pages_stay_stable_while_new_transfers_arrive(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        made = [body(await shard.request(wallet, debit("1")))["id"] for _ in range(11)]
        await project(database)
        page = await queries.transfers(wallet, EVERYTHING, limit=4, cursor=None)
        seen: list[str] = []
        while page is not None:
            seen += [item.id for item in page.items]
            for _ in range(3):
                await shard.request(wallet, debit("1"))
            await project(database)
            if page.next_cursor is None:
                break
            page = await queries.transfers(wallet, EVERYTHING, limit=4, cursor=page.next_cursor)
    assert seen == made[::-1]


async def test_pages_stay_stable_while_transfers_are_settled(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        made = [
            body(await shard.request(wallet, debit("1", status="pending")))["id"] for _ in range(6)
        ]
        await project(database)
        first = await queries.transfers(wallet, EVERYTHING, limit=3, cursor=None)
        assert first is not None
        for transfer in made:
            await shard.request(wallet, settle(transfer, "completed"))
        await project(database)
        rest = await queries.transfers(wallet, EVERYTHING, limit=3, cursor=first.next_cursor)
        assert rest is not None
    assert [item.id for item in first.items + rest.items] == made[::-1]
    assert [item.status for item in first.items + rest.items] == ["pending"] * 3 + ["completed"] * 3
    assert rest.next_cursor is None


async def test_filters_take_what_they_name_and_nothing_else(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        await shard.request(wallet, debit("100"))
        by_status: dict[Any, list[str]] = {"pending": [], "completed": [], "failed": []}
        for status, ids in by_status.items():
            for _ in range(3):
                held = body(await shard.request(wallet, credit("1", status="pending")))["id"]
                if status != "pending":
                    await shard.request(wallet, settle(held, status))
                ids.append(held)
        await project(database)
        for status, ids in by_status.items():
            wanted = TransferFilter(status=status, type="credit")
            assert await all_pages(queries, wallet, wanted, limit=2) == ids[::-1]
        debits = await all_pages(queries, wallet, TransferFilter(type="debit"), limit=2)
        assert len(debits) == 1
        none = TransferFilter(type="debit", status="failed")
        assert await all_pages(queries, wallet, none, limit=2) == []


async def test_a_cursor_of_another_list_is_refused(database: str) -> None:
    async with running_shard(database) as shard, queries_on(database) as queries:
        wallet = await shard.create_wallet()
        for cursor in ("x", "!", "ü", "AAAAAAAAAA", "AAAAAAAAAAAAAAAA", "A" * 64):
            with pytest.raises(CursorError):
                await queries.transfers(wallet, EVERYTHING, limit=5, cursor=cursor)


async def test_an_unavailable_database_is_reported_as_such() -> None:
    async with queries_on(f"postgresql://nobody@127.0.0.1:{free_port()}/none") as queries:
        with pytest.raises(ReadUnavailable):
            await queries.wallet(WalletId(new_id()))
        with pytest.raises(ReadUnavailable):
            await queries.ping()
