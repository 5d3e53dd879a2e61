"""Commands in one batch share a transaction and nothing else."""

import asyncio

from tests.support.ids import new_id
from tests.support.results import applied, body, failed
from tests.support.write_side import create_wallet, debit, running_shard
from wallet.commands import Command, CommandItem, CommandRequest
from wallet.ids import WalletId


def make_request(wallet_id: WalletId, command: Command, *, attempt: int = 1) -> CommandRequest:
    return CommandRequest(
        wallet_id=wallet_id,
        items=(CommandItem(command=command),),
        request_id=new_id(),
        timeout_s=10.0,
        attempt=attempt,
    )


async def test_two_deliveries_of_one_command_in_one_batch_apply_it_once(database: str) -> None:
    async with running_shard(database) as shard:
        wallet_id = await shard.create_wallet()
        command = debit("7")
        replies = await shard.shard.submit(
            [make_request(wallet_id, command, attempt=attempt) for attempt in (1, 2)]
        )
        assert applied(replies[0]).body == applied(replies[1]).body
        after = body(await shard.request(wallet_id, debit("1")))
    assert (after["wallet"]["version"], after["wallet"]["balance"]) == (3, "8.00")


async def test_two_deliveries_of_one_creation_in_one_batch_make_one_wallet(database: str) -> None:
    async with running_shard(database) as shard:
        wallet_id = WalletId(new_id())
        command = create_wallet(wallet_id, reference_id="r-1")
        replies = await shard.shard.submit(
            [make_request(wallet_id, command, attempt=attempt) for attempt in (1, 2)]
        )
    assert applied(replies[0]).body == applied(replies[1]).body


async def test_a_command_that_the_database_refuses_fails_alone(
    database: str,
) -> None:
    async with running_shard(database) as shard:
        one, other = [await shard.create_wallet() for _ in range(2)]
        # The API refuses control characters; Postgres can't store this one.
        poison = shard.request(one, debit("1", reference_id="a\x00b"))
        replies = await asyncio.gather(
            shard.request(one, debit("2")), poison, shard.request(other, debit("3"))
        )
        assert failed(replies[1]).applied == "no"
        assert body(replies[0])["wallet"]["balance"] == "2.00"
        assert body(replies[2])["wallet"]["balance"] == "3.00"
        after = body(await shard.request(one, debit("1")))
    assert after["wallet"]["balance"] == "3.00"
