"""`wallet digest`: nothing up to an earlier digest can be changed without being found."""

import io
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from rich.console import Console

from tests.support.lost_commits import rewind
from tests.support.write_side import ShardUnderTest, debit, running_shard
from verification.database import check_database, connect
from verification.digest import (
    DigestUnreadable,
    EarlierHeads,
    heads_path,
    take_digest,
    write_digest,
)
from verification.findings import Findings
from verification.runner import EXIT_ERROR, print_digest
from verification.violations import Violation, ViolationKind
from wallet.ids import WalletId


async def write(shard: ShardUnderTest, wallets: list[WalletId], events: int) -> None:
    for wallet_id in wallets:
        for _ in range(events):
            await shard.request(wallet_id, debit("1"))


async def taken(database: str, path: Path) -> str:
    connection = await connect(database)
    try:
        return (await write_digest(connection, path)).root
    finally:
        await connection.close()


async def differing(database: str, path: Path) -> set[tuple[str, ViolationKind]]:
    found: list[Violation] = []
    connection = await connect(database)
    try:
        await check_database(
            connection,
            Findings(found.append),
            lag_max=timedelta(hours=1),
            earlier=EarlierHeads(path),
        )
    finally:
        await connection.close()
    return {(violation.wallet_id, violation.kind) for violation in found}


async def execute(database: str, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def test_another_history_is_found_though_its_chain_is_sound(
    database: str, tmp_path: Path
) -> None:
    path = tmp_path / "digest.json"
    async with running_shard(database) as shard:
        wallets = [await shard.create_wallet() for _ in range(5)]
        await write(shard, wallets, 3)
        root = await taken(database, path)
        assert root == await taken(database, path)
        await write(shard, wallets, 2)
        wallets.append(await shard.create_wallet())
    assert root != await taken(database, tmp_path / "other.json")
    assert await differing(database, path) == set()
    await rewind(database, wallets[0], 3)  # before the digest
    await rewind(database, wallets[1], 4)  # after it
    await rewind(database, wallets[2], 2)
    await rewind(database, wallets[3], 0)
    async with running_shard(database) as shard:
        await write(shard, wallets[1:3], 4)
    assert await differing(database, path) == {
        (wallets[0], ViolationKind.DIGEST_DIFFERS),
        (wallets[2], ViolationKind.DIGEST_DIFFERS),
        (wallets[3], ViolationKind.DIGEST_DIFFERS),
    }


async def test_wallets_from_before_the_chain_have_the_same_digest(
    database: str, tmp_path: Path
) -> None:
    """Their hash is computed over their whole journal, stored or not."""
    path = tmp_path / "digest.json"
    async with running_shard(database) as shard:
        wallets = [await shard.create_wallet() for _ in range(3)]
        await write(shard, wallets, 3)
    root = await taken(database, path)
    await execute(
        database,
        "UPDATE wallet_events SET hash = NULL, previous_hash = NULL WHERE wallet_id = $1::uuid",
        wallets[0],
    )
    assert await differing(database, path) == set()
    await execute(
        database,
        "UPDATE wallets SET hash = '', hash_version = 0 WHERE id = $1::uuid",
        wallets[0],
    )
    assert await taken(database, path) == root
    assert await differing(database, path) == set()
    await execute(
        database,
        "UPDATE wallet_events SET reference_id = 'x' WHERE wallet_id = $1::uuid AND version = 2",
        wallets[0],
    )
    assert (wallets[0], ViolationKind.DIGEST_DIFFERS) in await differing(database, path)


async def test_heads_that_are_not_the_digests_are_refused(database: str, tmp_path: Path) -> None:
    path, other = tmp_path / "digest.json", tmp_path / "other.json"
    async with running_shard(database) as shard:
        wallets = [await shard.create_wallet()]
        await taken(database, path)
        await write(shard, wallets, 1)
        await taken(database, other)
    heads_path(path).write_bytes(heads_path(other).read_bytes())
    with pytest.raises(DigestUnreadable, match="has not the heads"):
        EarlierHeads(path)
    heads_path(path).write_bytes(b"nonsense")
    with pytest.raises(DigestUnreadable):
        EarlierHeads(path)
    heads_path(path).unlink()
    with pytest.raises(DigestUnreadable):
        EarlierHeads(path)


async def test_a_ledger_without_wallets_has_a_digest(database: str) -> None:
    connection = await connect(database)
    digest = await take_digest(connection)
    await connection.close()
    assert (digest.wallets, len(digest.root)) == (0, 64)


def test_a_digest_that_can_not_be_taken_says_why() -> None:
    said = io.StringIO()
    console = Console(file=said, width=1_000)
    assert (
        print_digest("postgresql://nobody@127.0.0.1:1/none", None, console, console) == EXIT_ERROR
    )
    assert "Digest failed" in said.getvalue()
