"""Reads of one kind, gathered: those that come in while queries are under way share the next one.

One query for a hundred rows costs the driver and Postgres little more than a query for one. Nothing
is cached, and no read waits for others to come: a read that finds fewer than two queries under way
is sent at once, alone. A read only joins a query that is sent after it came in, so it sees
everything that was committed before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any, Final

import asyncpg

Key = tuple[str, ...]
Row = asyncpg.Record

_QUERIES_MAX: Final = 2
"""Queries of one kind under way: while Postgres works on one, the rows of another are read."""

_KEYS_MAX: Final = 256
"""Keys of one query: it then takes some 2 ms, so that other statements get their turn."""


def statement_for_many(sql: str, types: Sequence[str]) -> str:
    """``sql``, which returns at most one row for its parameters, for a list of each parameter.

    ``types``: of the parameters. Each row has the number of its parameters, from 1, as ``number``.
    The planner's statistics have no say: the index is read once for each key.
    """
    numbers = range(1, len(types) + 1)
    for number in numbers:
        sql = sql.replace(f"${number}", f"i.key{number}")
    lists = ", ".join(f"${number}::{type_}[]" for number, type_ in zip(numbers, types, strict=True))
    names = ", ".join(f"key{number}" for number in numbers)
    return f"""
SELECT i.number, r.* FROM unnest({lists}) WITH ORDINALITY AS i({names}, number)
CROSS JOIN LATERAL ({sql} OFFSET 0) r
"""


class GroupedReads:
    """Reads by one statement that returns at most one row for each key."""

    def __init__(
        self,
        sql: str,
        types: Sequence[str],
        *,
        fetch_one: Callable[..., Awaitable[Row | None]],
        fetch_many: Callable[..., Awaitable[Sequence[Row]]],
        timeout_s: float,
    ) -> None:
        """``timeout_s``: how long a read waits at most for queries of others and its own."""
        self._one = sql
        self._many = statement_for_many(sql, types)
        self._fetch_one = fetch_one
        self._fetch_many = fetch_many
        self._timeout_s = timeout_s
        self._waiting: dict[Key, list[asyncio.Future[Row | None]]] = {}
        self._under_way = 0
        """Queries."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def row(self, *key: str) -> Row | None:
        """The row for ``key``, or what the query raises.

        Raises:
            TimeoutError: it waited too long for queries under way.
        """
        if self._under_way < _QUERIES_MAX and not self._waiting:
            self._under_way += 1
            try:
                return await self._fetch_one(self._one, *key)
            finally:
                self._end_query()
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(waiter)
        async with asyncio.timeout(self._timeout_s):
            row: Row | None = await waiter
        return row

    def _end_query(self) -> None:
        """Let those that came in meanwhile share the next one."""
        self._under_way -= 1
        if self._waiting:
            self._under_way += 1
            keys = list(islice(self._waiting, _KEYS_MAX))
            task = asyncio.create_task(self._query(keys, [self._waiting.pop(key) for key in keys]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _query(
        self, keys: list[Key], waiters: list[list[asyncio.Future[Row | None]]]
    ) -> None:
        try:
            rows = await self._fetch(keys)
        except Exception as failure:  # noqa: BLE001 - each read that waits raises it
            _fail(waiters, failure)
        else:
            for row, waiting in zip(rows, waiters, strict=True):
                for waiter in waiting:
                    if not waiter.done():  # The read may have given up.
                        waiter.set_result(row)
        finally:
            self._end_query()

    async def _fetch(self, keys: Sequence[Key]) -> Sequence[Row | None]:
        """The rows for ``keys``, in their order."""
        if len(keys) == 1:
            return [await self._fetch_one(self._one, *keys[0])]
        found: dict[int, Any] = {}
        for row in await self._fetch_many(self._many, *map(list, zip(*keys, strict=True))):
            assert row["number"] not in found, "a statement returns one row for a key"
            found[row["number"]] = row
        return [found.get(number) for number in range(1, len(keys) + 1)]


def _fail(waiters: Sequence[Sequence[asyncio.Future[Row | None]]], failure: Exception) -> None:
    for waiting in waiters:
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(failure)
