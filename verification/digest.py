"""A digest of the ledger: every wallet's head, and one root over all of them.

The root is BLAKE2b with 256 bits over the heads in the order of their wallets' ids: 16 bytes of the
id, 8 of the version (big-endian), 16 of the hash. Each hash covers all events of its wallet, so the
root covers the ledger. It is small enough to be kept, or published, where nobody who can write to
the database can change it.

The heads are in a file of their own, since a root alone can't be computed again once more events
were written. They need no protection: the root proves that they are the ones it was made of.
"""

import gzip
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from verification import rows
from verification.chain import ChainReplay, Head
from verification.merge_join import CursorPages
from verification.rows import Row

_ALL: Final = ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff")

_EVENTS: Final = f"{rows.CHAINED_EVENTS} WHERE wallet_id = $1::uuid ORDER BY version"


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """The root over all heads at one moment."""

    root: str
    """In hexadecimal."""
    time: datetime
    """Of the snapshot, by the clock of Postgres."""
    wallets: int


class DigestUnreadable(ValueError):
    """The digest's file or its heads can't be read, or don't belong together."""


class _Root:
    def __init__(self) -> None:
        self._hash = blake2b(digest_size=32, person=b"wallet digest")
        self.wallets = 0

    def add(self, wallet_id: str, head: Head) -> None:
        self._hash.update(UUID(wallet_id).bytes + head.version.to_bytes(8) + head.hash)
        self.wallets += 1

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()


def heads_path(digest: Path) -> Path:
    """Where the heads of the digest in this file are."""
    return digest.with_name(f"{digest.name}.heads.gz")


async def take_digest(
    connection: asyncpg.Connection, on_head: Callable[[str, Head], None] = lambda *_: None
) -> Digest:
    """The digest of one snapshot; writers may go on. ``on_head`` gets the heads in order."""
    root = _Root()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        now: datetime = await connection.fetchval("SELECT clock_timestamp()")
        async for wallet_id, head in _heads(connection):
            root.add(wallet_id, head)
            on_head(wallet_id, head)
    return Digest(root=root.hex, time=now, wallets=root.wallets)


async def _heads(connection: asyncpg.Connection) -> AsyncIterator[tuple[str, Head]]:
    async for page in CursorPages(connection, rows.WALLETS, *_ALL):
        for row in page:
            wallet = rows.wallet_from_row(row)
            head = wallet.head
            if head.version != wallet.row.version:
                head = await _computed_head(connection, wallet)
            yield wallet.row.wallet_id, head


async def _computed_head(connection: asyncpg.Connection, wallet: rows.Wallet) -> Head:
    """Of a wallet that a release from before the chain wrote last: from its whole journal."""
    replay = ChainReplay(wallet.row.wallet_id)
    async for page in CursorPages(connection, _EVENTS, wallet.row.wallet_id):
        for row in page:
            _replay_event(replay, row, wallet)
    return Head(replay.version, replay.hash)


def _replay_event(replay: ChainReplay, row: Row, wallet: rows.Wallet) -> None:
    event, facts = rows.event_from_row(row), rows.content_from_row(row, wallet)
    for violation in replay.add(event, facts, rows.chain_from_row(row)):
        raise DigestUnreadable(f"the ledger is damaged, verify it first: {violation}")


async def write_digest(connection: asyncpg.Connection, path: Path) -> Digest:
    """Take a digest; write it to ``path`` and its heads to `heads_path`."""
    with gzip.open(heads_path(path), "wt", encoding="ascii") as heads:

        def write(wallet_id: str, head: Head) -> None:
            heads.write(f"{wallet_id} {head.version} {head.hash.hex()}\n")

        digest = await take_digest(connection, write)
    _write(path, digest)
    return digest


def _write(path: Path, digest: Digest) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(digest)) + b"\n")


class EarlierHeads:
    """The heads of an earlier digest, in the order of their wallets."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DigestUnreadable: a file is missing, or the heads don't have the digest's root.
        """
        self.digest = _read_digest(path)
        self._path = heads_path(path)
        root = _Root()
        for wallet_id, head in _read_heads(self._path):
            root.add(wallet_id, head)
        if (root.hex, root.wallets) != (self.digest.root, self.digest.wallets):
            raise DigestUnreadable(f"{self._path} has not the heads of {path}: root {root.hex}")
        self._heads = _read_heads(self._path)
        self._next = next(self._heads, None)

    def up_to(self, wallet_id: str) -> dict[str, Head]:
        """The next heads, up to this wallet."""
        taken: dict[str, Head] = {}
        while self._next is not None and self._next[0] <= wallet_id:
            taken[self._next[0]] = self._next[1]
            self._next = next(self._heads, None)
        return taken


def _read_digest(path: Path) -> Digest:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Digest)
    except (OSError, msgspec.MsgspecError) as failure:
        raise DigestUnreadable(f"{path}: {failure}") from failure


def _read_heads(path: Path) -> Iterator[tuple[str, Head]]:
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            yield from _parse(lines)
    except (OSError, EOFError, ValueError) as failure:
        raise DigestUnreadable(f"{path}: {failure}") from failure


def _parse(lines: Iterable[str]) -> Iterator[tuple[str, Head]]:
    for line in lines:
        wallet_id, version, hash_ = line.split()
        yield wallet_id, Head(int(version), bytes.fromhex(hash_))
