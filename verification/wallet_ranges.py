"""Wallets in ranges, so that no transaction of a check lasts long."""

from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import msgspec

_FIRST: Final = "00000000-0000-0000-0000-000000000000"
_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"

_WALLETS_MAX: Final = 5_000
_EVENTS: Final = 100_000
"""A range ends with the wallet that reaches this number of events."""

_PAGE: Final = "SELECT id::text, version FROM wallets WHERE id > $1::uuid ORDER BY id LIMIT $2"


class Range(msgspec.Struct, frozen=True):
    """Wallets with an id above ``after``, up to ``until``."""

    after: str
    until: str


async def ranges(connection: asyncpg.Connection) -> AsyncIterator[Range]:
    """Ranges without gaps over all possible ids: rows without a wallet are checked, too."""
    after = _FIRST
    while True:
        page = await connection.fetch(_PAGE, after, _WALLETS_MAX)
        until = _end_of([(row[0], row[1]) for row in page])
        yield Range(after, until)
        if until == _LAST:
            return
        after = until


def _end_of(page: list[tuple[str, int]]) -> str:
    events = 0
    for wallet_id, version in page:
        events += version
        if events >= _EVENTS:
            return wallet_id
    return page[-1][0] if len(page) == _WALLETS_MAX else _LAST
