"""Reads are gathered while queries are under way; each gets its own row, and never an older one."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from projections import grouped_reads
from projections.grouped_reads import GroupedReads, statement_for_many

SQL = "SELECT value FROM table WHERE key = $1::uuid"
MISSING = "missing"


class Table:
    """A table whose rows are their keys, read by queries that wait until they are let go."""

    def __init__(self) -> None:
        self.queries: list[list[str]] = []
        self.under_way: list[asyncio.Event] = []
        self.failure: Exception | None = None
        self.reads = GroupedReads(
            SQL, ["uuid"], fetch_one=self.one, fetch_many=self.many, timeout_s=5.0
        )

    async def one(self, sql: str, key: str) -> Any:
        assert sql == SQL
        await self._query([key])
        return {"value": key} if key != MISSING else None

    async def many(self, sql: str, keys: Sequence[str]) -> Any:
        assert sql == statement_for_many(SQL, ["uuid"])
        await self._query(list(keys))
        rows = [{"number": n, "value": key} for n, key in enumerate(keys, 1) if key != MISSING]
        return rows[::-1]  # in no order

    async def _query(self, keys: list[str]) -> None:
        self.queries.append(keys)
        ended = asyncio.Event()
        self.under_way.append(ended)
        await ended.wait()
        if self.failure is not None:
            raise self.failure

    def start(self, *keys: str) -> list[asyncio.Task[Any]]:
        return [asyncio.ensure_future(self.reads.row(key)) for key in keys]

    async def let_go(self) -> None:
        """End the queries that are under way."""
        for ended in self.under_way:
            ended.set()
        self.under_way = []
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def values(reads: Sequence[asyncio.Task[Any]]) -> list[str | None]:
    return [read.result()["value"] if read.result() is not None else None for read in reads]


@pytest.fixture
def table() -> Table:
    return Table()


async def saturated(table: Table) -> list[asyncio.Task[Any]]:
    """As many queries under way as there may be, each for one key."""
    reads = []
    for key in ("first", "second"):
        reads += table.start(key)
        await settle()
    assert table.queries == [["first"], ["second"]]
    return reads


async def test_a_lone_read_is_sent_at_once_and_alone(table: Table) -> None:
    reads = table.start("a")
    await settle()
    assert table.queries == [["a"]]
    await table.let_go()
    assert values(reads) == ["a"]


async def test_reads_that_come_meanwhile_share_the_next_query(table: Table) -> None:
    first = await saturated(table)
    later = table.start("a", MISSING, "b", "a")
    await settle()
    assert len(table.queries) == 2
    await table.let_go()
    assert table.queries[2:] == [["a", MISSING, "b"]]
    await table.let_go()
    assert values(first) == ["first", "second"]
    assert values(later) == ["a", None, "b", "a"]


async def test_a_read_never_joins_a_query_that_was_sent_before(table: Table) -> None:
    first = await saturated(table)
    again = table.start("first")
    await table.let_go()
    assert values(first) == ["first", "second"]
    assert not again[0].done()
    assert table.queries[2:] == [["first"]]
    await table.let_go()
    assert values(again) == ["first"]


async def test_a_failed_query_fails_its_own_reads_only(table: Table) -> None:
    first = await saturated(table)
    later = table.start("a", "b")
    table.failure = ValueError("no answer")
    await table.let_go()
    assert [type(read.exception()) for read in first] == [ValueError, ValueError]
    table.failure = None
    await table.let_go()
    assert values(later) == ["a", "b"]


async def test_a_read_that_gave_up_does_not_disturb_the_others(table: Table) -> None:
    await saturated(table)
    gives_up, stays = table.start("a", "a")
    await settle()
    gives_up.cancel()
    await table.let_go()
    await table.let_go()
    assert gives_up.cancelled()
    assert values([stays]) == ["a"]


async def test_a_query_has_a_bounded_number_of_keys(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped_reads, "_KEYS_MAX", 2)
    await saturated(table)
    reads = table.start(*"abcde")
    for _ in range(3):
        await table.let_go()
    assert sorted(table.queries[2:]) == [["a", "b"], ["c", "d"], ["e"]]
    assert values(reads) == list("abcde")


async def test_two_rows_for_one_key_are_no_answer(table: Table) -> None:
    async def twice(_sql: str, _keys: Sequence[str]) -> Any:
        return [{"number": 1}, {"number": 1}]

    reads = GroupedReads(SQL, ["uuid"], fetch_one=table.one, fetch_many=twice, timeout_s=5.0)
    table.reads = reads
    await saturated(table)
    later = table.start("a", "b")
    await table.let_go()
    assert [type(read.exception()) for read in later] == [AssertionError, AssertionError]
