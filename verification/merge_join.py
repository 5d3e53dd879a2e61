"""Rows of a statement, page by page, and a merge join of several sorted statements."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import asyncpg

from verification.rows import Row

_PAGE: Final = 5_000
"""Rows per fetch: bounds the memory of a statement of any length."""

Key = tuple[str, str]


class CursorPages:
    """A statement's rows from a server-side cursor. Needs a transaction."""

    def __init__(self, connection: asyncpg.Connection, statement: str, *arguments: Any) -> None:
        self._connection = connection
        self._statement = statement
        self._arguments = arguments
        self._cursor: Any = None

    async def next(self) -> Sequence[Row]:
        """The next rows; empty at the end."""
        if self._cursor is None:
            self._cursor = await self._connection.cursor(self._statement, *self._arguments)
        return list(await self._cursor.fetch(_PAGE))

    async def __aiter__(self) -> AsyncIterator[Sequence[Row]]:
        while page := await self.next():
            yield page


class _SortedReader:
    """One input of the merge join."""

    def __init__(self, pages: CursorPages, key_of: Callable[[Row], Key]) -> None:
        self._pages = pages
        self._key_of = key_of
        self._rows: list[Row] = []
        self.ended = False

    @property
    def last(self) -> Key:
        return self._key_of(self._rows[-1])

    async def read_beyond(self, key: Key | None) -> None:
        """Read until the last buffered row is beyond ``key``, or to the end."""
        while not self.ended and (not self._rows or (key is not None and self.last <= key)):
            more = await self._pages.next()
            self._rows += more
            self.ended = not more

    def take(self, bound: Key | None) -> Sequence[Row]:
        """Remove and return the rows before ``bound``, or all."""
        if bound is None:
            taken, self._rows = self._rows, []
            return taken
        count = next(
            (at for at, row in enumerate(self._rows) if self._key_of(row) >= bound),
            len(self._rows),
        )
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken


async def merge_join(
    statements: Mapping[str, CursorPages], key_of: Callable[[Row], Key]
) -> AsyncIterator[dict[Key, dict[str, list[Row]]]]:
    """Group rows by key, some keys at a time. Every statement is sorted by the key."""
    readers = {name: _SortedReader(pages, key_of) for name, pages in statements.items()}
    done: Key | None = None
    while True:
        for reader in readers.values():
            await reader.read_beyond(done)
        open_ends = [reader.last for reader in readers.values() if not reader.ended]
        # Keys from the smallest last one on may have more rows on that statement's next page.
        bound = min(open_ends) if open_ends else None
        found: defaultdict[Key, dict[str, list[Row]]] = defaultdict(dict)
        for name, reader in readers.items():
            for row in reader.take(bound):
                found[key_of(row)].setdefault(name, []).append(row)
        if found:
            yield found
        if bound is None:
            return
        done = bound if not found else None
