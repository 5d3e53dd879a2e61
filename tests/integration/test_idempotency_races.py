"""Ten concurrent requests with one key on two owners: one decision, one response."""

import asyncio

import asyncpg

from actors.rpc.messages import KeyClaimed, RequestResult
from tests.support.ids import new_id
from tests.support.results import applied, body, refused
from tests.support.write_side import (
    ShardUnderTest,
    create_wallet,
    creation_scope_of,
    credit,
    debit,
    running_shard,
)
from wallet.commands import ClaimKey, CommandItem, CommandRequest, Idempotency
from wallet.ids import IdempotencyKey, WalletId, batch_scope

_AT_ONCE = 10


async def race(
    owners: list[ShardUnderTest], wallet_id: WalletId, amounts: list[str]
) -> list[RequestResult]:
    """Concurrent requests with one key and each of ``amounts``, alternating between owners."""
    return await asyncio.gather(
        *(
            owners[number % len(owners)].request(wallet_id, debit(amount), key="k")
            for number, amount in enumerate(amounts)
        )
    )


async def events_of(database: str, wallet_id: WalletId) -> int:
    connection = await asyncpg.connect(database)
    try:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM wallet_events WHERE wallet_id = $1", wallet_id
        )
    finally:
        await connection.close()
    return count


async def test_ten_equal_requests_under_one_key_move_the_money_once(database: str) -> None:
    async with running_shard(database) as one, running_shard(database) as other:
        wallet_id = await one.create_wallet()
        replies = await race([one, other], wallet_id, ["7"] * _AT_ONCE)
    assert len({applied(reply).body for reply in replies}) == 1
    assert body(replies[0])["wallet"]["balance"] == "7.00"
    assert sum(applied(reply).replayed for reply in replies) == _AT_ONCE - 1
    assert await events_of(database, wallet_id) == 2


async def test_ten_different_requests_under_one_key_let_one_win(database: str) -> None:
    async with running_shard(database) as one, running_shard(database) as other:
        wallet_id = await one.create_wallet()
        amounts = [str(number + 1) for number in range(_AT_ONCE)]
        replies = await race([one, other], wallet_id, amounts)
    codes = [body(reply).get("code") for reply in replies]
    assert codes.count(None) == 1
    assert codes.count("idempotency_key_reused") == _AT_ONCE - 1
    assert await events_of(database, wallet_id) == 2


async def test_ten_equal_refusals_under_one_key_are_one_refusal(database: str) -> None:
    async with running_shard(database) as one, running_shard(database) as other:
        wallet_id = await one.create_wallet()
        replies = await asyncio.gather(
            *(
                owner.request(wallet_id, credit("1"), key="k")
                for owner in (one, other)
                for _ in range(_AT_ONCE // 2)
            )
        )
        await one.request(wallet_id, debit("100"))
        late = await other.request(wallet_id, credit("1"), key="k")
    refusals = [refused(reply).refusal for reply in [*replies, late]]
    assert refusals == [refusals[0]] * (_AT_ONCE + 1)
    assert body(late)["code"] == "insufficient_funds"


async def test_ten_creations_under_one_key_make_one_wallet(database: str) -> None:
    scope = creation_scope_of("open")
    async with running_shard(database) as one, running_shard(database) as other:
        replies = await asyncio.gather(
            *(
                owner.request(scope, create_wallet(WalletId(new_id())), key="open")
                for owner in (one, other)
                for _ in range(_AT_ONCE // 2)
            )
        )
    assert len({applied(reply).body for reply in replies}) == 1
    assert await events_of(database, WalletId(body(replies[0])["id"])) == 1


async def test_one_of_ten_batches_claims_a_key(database: str) -> None:
    key = IdempotencyKey("payout")

    def claim(number: int) -> CommandRequest:
        keyed = Idempotency(key=key, fingerprint=b"request %d" % number)
        return CommandRequest(
            wallet_id=batch_scope(key),
            items=(CommandItem(command=ClaimKey(), idempotency=keyed),),
            request_id=f"r{number}",
            timeout_s=10.0,
        )

    async with running_shard(database) as one, running_shard(database) as other:
        owners = [one.shard, other.shard]
        submitted = [owners[number % 2].submit([claim(number)]) for number in range(_AT_ONCE)]
        replies = [reply for (reply,) in await asyncio.gather(*submitted)]
        (winner,) = [n for n, reply in enumerate(replies) if isinstance(reply, KeyClaimed)]
        (again,) = await owners[winner % 2 - 1].submit([claim(winner)])
    assert again == KeyClaimed(request_id=f"r{winner}", replayed=True)
