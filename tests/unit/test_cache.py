"""The cache of active wallets: bounded, and without settled transfers."""

import pytest

from actors.shard.cache import WalletCache
from tests.support.domain import make_transfer, make_wallet, settled, transfer_id, wallet_id
from wallet.ids import WalletId
from wallet.state import TransferStatus

A, B, C = wallet_id(1), wallet_id(2), wallet_id(3)


def make_cache(wallets_max: int = 2, transfers_max: int = 2) -> WalletCache:
    return WalletCache(wallets_max=wallets_max, transfers_max=transfers_max)


def put(cache: WalletCache, *wallets: WalletId) -> None:
    for wallet in wallets:
        cache.put(make_wallet(id=wallet))


def test_a_wallet_is_remembered_at_its_last_state() -> None:
    cache = make_cache()
    cache.put(make_wallet(id=A, version=1))
    cache.put(make_wallet(id=A, version=2, balance=7))
    active = cache.get(A)
    assert active is not None
    assert active.state == make_wallet(id=A, version=2, balance=7)
    assert (len(cache), cache.activations) == (1, 1)


def test_memory_never_moves_back() -> None:
    cache = make_cache()
    cache.put(make_wallet(id=A, version=2))
    with pytest.raises(AssertionError, match="INV-8"):
        cache.put(make_wallet(id=A, version=1))


def test_the_least_recently_used_wallet_leaves_first() -> None:
    cache = make_cache()
    put(cache, A, B, A, C)
    assert cache.get(B) is None
    assert cache.get(A) is not None
    assert cache.get(C) is not None
    assert (len(cache), cache.activations) == (2, 3)


def test_a_wallet_that_comes_back_knows_none_of_its_former_transfers() -> None:
    cache = make_cache(wallets_max=1)
    put(cache, A)
    cache.put_transfer(A, make_transfer(id=transfer_id(1)))
    put(cache, B, A)
    active = cache.get(A)
    assert active is not None
    assert active.pending == {}


def test_the_next_state_keeps_pending_transfers_and_drops_settled_ones() -> None:
    cache = make_cache()
    put(cache, A)
    first, second = make_transfer(id=transfer_id(1)), make_transfer(id=transfer_id(2))
    cache.put_transfer(A, first)
    cache.put_transfer(A, second)
    put(cache, A)
    cache.put_transfer(A, settled(first, TransferStatus.COMPLETED))
    active = cache.get(A)
    assert active is not None
    assert active.pending == {second.id: second}


def test_the_oldest_pending_transfer_leaves_first() -> None:
    cache = make_cache(transfers_max=2)
    put(cache, A)
    for number in (1, 2, 3):
        cache.put_transfer(A, make_transfer(id=transfer_id(number)))
    active = cache.get(A)
    assert active is not None
    assert list(active.pending) == [transfer_id(2), transfer_id(3)]


def test_transfers_of_a_wallet_that_is_not_active_are_not_kept() -> None:
    cache = make_cache()
    cache.put_transfer(A, make_transfer())
    assert cache.get(A) is None
    assert len(cache) == 0


def test_a_forgotten_wallet_is_gone_with_its_transfers() -> None:
    cache = make_cache()
    put(cache, A)
    cache.put_transfer(A, make_transfer())
    cache.forget(A)
    cache.forget(A)
    assert cache.get(A) is None
    put(cache, A)
    active = cache.get(A)
    assert active is not None
    assert active.pending == {}
