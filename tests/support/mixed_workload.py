"""A mixed workload for tests that compare the write side with the read side."""

import asyncio
from collections.abc import Sequence

from tests.support.ids import new_id
from tests.support.results import body
from tests.support.write_side import ShardUnderTest, credit, debit, settle
from wallet.commands import ControlWallet, FreezeWallet, UnfreezeWallet, UpdateWallet
from wallet.ids import WalletId


async def open_wallets(shard: ShardUnderTest, count: int) -> list[WalletId]:
    """Wallets of several currencies, some with a reference, some with metadata."""
    scales = (("USD", 2), ("JPY", 0), ("ETH", 18))
    return [
        await shard.create_wallet(
            currency=scales[number % 3][0],
            scale=scales[number % 3][1],
            reference_id=f"reference-{number}" if number % 2 else None,
            metadata={"number": str(number)} if number % 4 else {},
        )
        for number in range(count)
    ]


async def run_mixed_workload(
    shard: ShardUnderTest, wallets: Sequence[WalletId], *, rounds: int = 3
) -> None:
    """Run every state transition in every wallet, ``rounds`` times, all wallets concurrently."""
    for _ in range(rounds):
        await asyncio.gather(*(_one_round(shard, wallet) for wallet in wallets))


EVENTS_A_ROUND = 14


async def _one_round(shard: ShardUnderTest, wallet: WalletId) -> None:
    await shard.request(wallet, debit("10", metadata={"from": "me"}, reference_id="paid"))
    held = [
        body(await shard.request(wallet, make("2", status="pending", metadata={"a": "1"})))["id"]
        for make in (debit, debit, credit, credit)
    ]
    await shard.request(wallet, credit("3"))
    for transfer, end in zip(held, ("completed", "failed") * 2, strict=True):
        await shard.request(
            wallet, settle(transfer, end, reference_id="settled", metadata={"b": "2"})
        )
    await shard.request(wallet, credit("1000000"))  # refused: no event
    await shard.request(wallet, debit("1", status="pending"))  # stays pending
    await _change(shard, wallet, FreezeWallet(direction="debit", reason="Žofie"))
    await shard.request(wallet, debit("1"))  # refused: no event
    await _change(shard, wallet, UnfreezeWallet())
    await _change(shard, wallet, UpdateWallet(metadata={"of": new_id()}, overdraft_limit="5"))


async def _change(shard: ShardUnderTest, wallet: WalletId, command: ControlWallet) -> None:
    body(await shard.request(wallet, command, key=new_id()))
