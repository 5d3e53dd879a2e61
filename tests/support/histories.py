"""A wallet with every kind of event, written by a shard."""

from typing import Any

from tests.support.results import body
from tests.support.write_side import ShardUnderTest, credit, debit, settle
from wallet.commands import Command, FreezeWallet, UnfreezeWallet, UpdateWallet
from wallet.ids import WalletId

API_KEY = "9f86d081884c7d65"


async def write_history(shard: ShardUnderTest, wallet: WalletId | None = None) -> list[Any]:
    """Bodies of the responses to each write, in order: the wallet's versions from 1."""
    if wallet is None:
        wallet = await shard.create_wallet(reference_id="shop-1", metadata={"a": "1"})
    written: list[Any] = []

    async def write(command: Command, **fields: Any) -> Any:
        key = f"key {len(written)}"
        found = body(await shard.request(wallet, command, key=key, api_key_id=API_KEY, **fields))
        written.append(found)
        return found

    await write(debit("100", reference_id="order-1", metadata={"channel": "web"}))
    held = [(await write(credit(amount, status="pending")))["id"] for amount in ("4", "2.50")]
    announced = (await write(debit("7", status="pending")))["id"]
    await write(UpdateWallet(metadata={"a": None, "b": "2"}, overdraft_limit="50"))
    await write(settle(held[0], "completed"))
    await write(settle(held[1], "failed"))
    await write(FreezeWallet(direction="both", reason="card reported as stolen"))
    await write(UnfreezeWallet(reason="new card"))
    await write(settle(announced, "completed", reference_id="order-2", metadata={"b": "3"}))
    await write(credit("150"))
    return written
