"""Two shards that own the same wallets, as during an upgrade: slower but correct."""

import asyncio
from collections import Counter
from random import Random

import asyncpg
import msgspec

from actors.rpc.messages import Failure
from runtime.settings import Settings
from tests.support.write_side import LIMITS, ShardUnderTest, debit, running_shard
from wallet.ids import WalletId

_WALLETS = 20
_CLIENTS = 128
_REQUESTS = 12


async def outcomes(
    shards: list[ShardUnderTest], wallets: list[WalletId], client: int
) -> Counter[str]:
    random = Random(client)
    counted: Counter[str] = Counter()
    for _ in range(_REQUESTS):
        shard, wallet = random.choice(shards), random.choice(wallets)
        reply = await shard.request(wallet, debit("1"))
        counted[reply.detail if isinstance(reply, Failure) else "done"] += 1
    return counted


async def deadlocks(database: str) -> int:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        counted: int = await connection.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    finally:
        await connection.close()
    return counted


async def test_two_owners_neither_deadlock_nor_give_up(database: str) -> None:
    retries_max = Settings.model_fields["conflict_retries_max"].default
    limits = msgspec.structs.replace(LIMITS, conflict_retries_max=retries_max)
    async with (
        running_shard(database, limits=limits) as one,
        running_shard(database, limits=limits) as other,
        asyncio.timeout(120),
    ):
        wallets = [await one.create_wallet() for _ in range(_WALLETS)]
        counted = await asyncio.gather(
            *(outcomes([one, other], wallets, client) for client in range(_CLIENTS))
        )
        assert one.shard.counts["conflicts"] + other.shard.counts["conflicts"] > 0
    assert sum(counted, Counter()) == {"done": _CLIENTS * _REQUESTS}
    assert await deadlocks(database) == 0
