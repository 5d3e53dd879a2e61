"""The ring, for all wallets: stable, and wallets move only to a new shard."""

from hypothesis import given
from hypothesis import strategies as st

from actors.dispatch.ring import ring_of
from wallet.ids import WalletId

wallet_ids = st.uuids().map(lambda one: WalletId(str(one)))


@given(wallet=wallet_ids, shards=st.integers(1, 7))
def test_every_wallet_has_one_shard(wallet: WalletId, shards: int) -> None:
    shard = ring_of(shards).shard_of(wallet)
    assert 0 <= shard < shards
    assert ring_of(shards).shard_of(wallet) == shard


@given(wallet=wallet_ids, shards=st.integers(1, 6))
def test_a_wallet_stays_or_moves_to_the_new_shard(wallet: WalletId, shards: int) -> None:
    before, after = ring_of(shards).shard_of(wallet), ring_of(shards + 1).shard_of(wallet)
    assert after in (before, shards)
