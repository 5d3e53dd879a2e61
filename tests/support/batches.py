"""Batches for tests of deciding: cached state, loaded state and requests."""

from typing import Any

from actors.journal.ports import LoadedState
from actors.shard.batch_decision import BatchDecider
from actors.shard.cache import WalletCache
from tests.support.domain import LATER, WALLET_ID
from wallet.commands import Command, CommandItem, CommandRequest, Idempotency
from wallet.ids import IdempotencyKey, WalletId
from wallet.state import Transfer, Wallet


def make_cache(*wallets: Wallet, pending: tuple[Transfer, ...] = ()) -> WalletCache:
    cache = WalletCache(wallets_max=100, transfers_max=100)
    for wallet in wallets:
        cache.put(wallet)
    for transfer in pending:
        cache.put_transfer(wallets[0].id, transfer)
    return cache


def make_batch(cache: WalletCache | None = None, **loaded: Any) -> BatchDecider:
    return BatchDecider(cache=cache or make_cache(), loaded=LoadedState(**loaded), now=LATER)


def request(
    *commands: Command,
    wallet: WalletId = WALLET_ID,
    keys: tuple[str | None, ...] = (),
    fingerprint: bytes = b"f",
    **fields: Any,
) -> CommandRequest:
    values: dict[str, Any] = {
        "request_id": "r1",
        "timeout_s": 1.0,
        "is_batch": len(commands) > 1,
    }
    return CommandRequest(
        wallet_id=wallet,
        items=tuple(
            CommandItem(
                command=command,
                idempotency=Idempotency(key=IdempotencyKey(key), fingerprint=fingerprint)
                if key
                else None,
            )
            for command, key in zip(
                commands, keys + (None,) * (len(commands) - len(keys)), strict=True
            )
        ),
        **values | fields,
    )


def keyed_batch(
    *commands: Command, key: str = "w", fingerprint: bytes = b"f", **fields: Any
) -> CommandRequest:
    idempotency = Idempotency(key=IdempotencyKey(key), fingerprint=fingerprint)
    values: dict[str, Any] = {"idempotency": idempotency, "is_batch": True}
    return request(*commands, **values | fields)
