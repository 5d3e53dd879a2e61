"""The ring: deterministic, balanced, and with few moved wallets on a change."""

import os
import subprocess
import sys

import pytest

from actors.dispatch.ring import POINTS_PER_SHARD, Ring, ring_of
from tests.support.domain import wallet_id

WALLETS = [wallet_id(number) for number in range(20_000)]

GOLDEN = {
    2: [1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1],
    3: [1, 1, 0, 2, 1, 0, 2, 1, 2, 2, 0, 2, 0, 1, 1, 1],
    16: [15, 6, 13, 7, 12, 9, 2, 13, 12, 10, 0, 13, 10, 10, 15, 6],
}
"""Shards of the first wallets. These may never change: the old and the new version must
agree on the owner of a wallet during an upgrade."""


@pytest.mark.parametrize("shard_count", GOLDEN)
def test_a_wallet_s_shard_never_changes(shard_count: int) -> None:
    ring = Ring(shard_count)
    assert [ring.shard_of(wallet) for wallet in WALLETS[:16]] == GOLDEN[shard_count]


def test_another_process_with_another_hash_seed_gives_the_same_answer() -> None:
    program = (
        "from actors.dispatch.ring import Ring; from tests.support.domain import wallet_id;"
        "print([Ring(16).shard_of(wallet_id(number)) for number in range(16)])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == str(GOLDEN[16])


@pytest.mark.parametrize("shard_count", [2, 3, 4, 8, 16])
def test_shards_get_about_equal_shares(shard_count: int) -> None:
    ring = Ring(shard_count)
    counts = [0] * shard_count
    for wallet in WALLETS:
        counts[ring.shard_of(wallet)] += 1
    fair = len(WALLETS) / shard_count
    assert max(counts) < 1.2 * fair
    assert min(counts) > 0.8 * fair


@pytest.mark.parametrize("shard_count", [1, 2, 3, 4, 7, 15])
def test_a_new_shard_takes_its_share_and_nothing_else_moves(shard_count: int) -> None:
    before, after = Ring(shard_count), Ring(shard_count + 1)
    moved = [wallet for wallet in WALLETS if before.shard_of(wallet) != after.shard_of(wallet)]
    assert {after.shard_of(wallet) for wallet in moved} == {shard_count}
    assert len(moved) < 1.2 * len(WALLETS) / (shard_count + 1)
    assert len(moved) > 0.8 * len(WALLETS) / (shard_count + 1)


def test_one_shard_owns_everything() -> None:
    assert {Ring(1).shard_of(wallet) for wallet in WALLETS[:100]} == {0}


def test_a_wallet_behind_the_last_point_belongs_to_the_first() -> None:
    ring = Ring(2)
    last = max(ring._positions)
    beyond = [wallet for wallet in map(wallet_id, range(20_000)) if _position(wallet) > last]
    assert beyond, "no wallet of the sample is after the last point: use a larger sample"
    assert {ring.shard_of(wallet) for wallet in beyond} == {ring._owners[0]}


def _position(wallet: str) -> int:
    from actors.dispatch import ring

    return ring._position(wallet)


def test_every_shard_has_all_of_its_points() -> None:
    ring = Ring(5)
    assert [ring._owners.count(shard) for shard in range(5)] == [POINTS_PER_SHARD] * 5
    assert ring._positions == sorted(set(ring._positions))


@pytest.mark.parametrize("shard_count", [0, -1])
def test_a_ring_without_shards_is_refused(shard_count: int) -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        Ring(shard_count)


def test_a_process_builds_each_ring_once() -> None:
    assert ring_of(3) is ring_of(3)
    assert ring_of(3).shard_count == 3
