"""The ring: deterministic, balanced, and with few moved slots on a change."""

import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from random import Random
from uuid import UUID

import pytest

from actors.dispatch.ring import Ring, ring_of
from tests.support.domain import wallet_id
from wallet.ids import WalletId
from wallet.slots import ALL_SLOTS, SLOTS, slot_of

GOLDEN_SLOTS = [
    8792,
    4814,
    884,
    13282,
    9793,
    5847,
    1901,
    14331,
    10858,
    6908,
    826,
    4736,
    8726,
    14261,
    1827,
    5785,
]
"""Slots of the first wallets. They may never change: an index of the database has them."""

GOLDEN = {
    2: [1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0],
    3: [1, 0, 0, 1, 1, 2, 0, 2, 1, 2, 0, 0, 1, 2, 0, 2],
    16: [1, 3, 0, 13, 10, 2, 8, 9, 14, 11, 0, 3, 1, 9, 8, 2],
}
"""Shards of the first wallets. If two releases disagree, each wallet moves during the upgrade."""


def owners(ring: Ring) -> list[int]:
    """The shard of each slot."""
    found = {
        slot: shard
        for shard in range(ring.shard_count)
        for first, last in ring.slots_of(shard)
        for slot in range(first, last + 1)
    }
    return [found[slot] for slot in range(SLOTS)]


def random_wallets(number: int) -> list[WalletId]:
    random = Random(12)
    return [WalletId(str(UUID(int=random.getrandbits(128), version=4))) for _ in range(number)]


def test_a_wallet_s_slot_never_changes() -> None:
    assert [slot_of(wallet_id(number)) for number in range(16)] == GOLDEN_SLOTS


@pytest.mark.parametrize("shard_count", GOLDEN)
def test_a_wallet_s_shard_never_changes(shard_count: int) -> None:
    ring = Ring(shard_count)
    assert [ring.shard_of(wallet_id(number)) for number in range(16)] == GOLDEN[shard_count]


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


@pytest.mark.parametrize("shard_count", [*range(1, 65), 100, 128, 205, 256, 512, 819])
def test_no_shard_has_more_than_a_twentieth_above_the_mean(shard_count: int) -> None:
    sizes = Counter(owners(Ring(shard_count)))
    assert len(sizes) == shard_count
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert max(sizes.values()) <= 1.05 * SLOTS / shard_count


@pytest.mark.parametrize("shard_count", [2, 6, 12, 48])
def test_wallets_spread_over_shards_as_slots_do(shard_count: int) -> None:
    ring = Ring(shard_count)
    counts = Counter(map(ring.shard_of, random_wallets(200_000)))
    mean = 200_000 / shard_count
    # Of independent wallets: five standard deviations.
    assert all(abs(counts[shard] - mean) < 5 * mean**0.5 for shard in range(shard_count))


def test_wallets_with_ids_in_a_row_spread_over_shards_as_well() -> None:
    ring = Ring(12)
    counts = Counter(ring.shard_of(wallet_id(number)) for number in range(20_000))
    assert max(counts.values()) < 1.1 * 20_000 / 12


@pytest.mark.parametrize("shard_count", [*range(1, 65), 127, 255])
def test_a_new_shard_takes_its_share_and_nothing_else_moves(shard_count: int) -> None:
    before, after = owners(Ring(shard_count)), owners(Ring(shard_count + 1))
    moved = [slot for slot in range(SLOTS) if before[slot] != after[slot]]
    assert {after[slot] for slot in moved} == {shard_count}
    assert len(moved) == SLOTS // (shard_count + 1)
    taken = Counter(before[slot] for slot in moved).values()
    assert max(taken) - min(taken) <= 2, "about the same from each of the others"


@pytest.mark.parametrize(("before", "after"), [(2, 6), (6, 2), (1, 48), (12, 7)])
def test_several_at_once_move_only_what_new_or_removed_shards_have(before: int, after: int) -> None:
    old, new = owners(Ring(before)), owners(Ring(after))
    fewer, more = (old, new) if before < after else (new, old)
    changed = [slot for slot in range(SLOTS) if old[slot] != new[slot]]
    assert changed == [slot for slot in range(SLOTS) if more[slot] >= min(before, after)]
    assert all(fewer[slot] < min(before, after) for slot in changed)


def test_the_owner_of_a_wallet_is_the_owner_of_its_slot() -> None:
    ring = Ring(7)
    shards = owners(ring)
    assert all(ring.shard_of(one) == shards[slot_of(one)] for one in random_wallets(1_000))


def test_the_ranges_of_a_shard_are_in_order_and_apart() -> None:
    ring = Ring(13)
    for shard in range(13):
        ranges = ring.slots_of(shard)
        assert all(first <= last for first, last in ranges)
        assert all(one.last + 1 < another.first for one, another in pairwise(ranges))


def test_one_shard_owns_everything() -> None:
    assert Ring(1).slots_of(0) == ALL_SLOTS
    assert set(owners(Ring(1))) == {0}


@pytest.mark.parametrize("shard_count", [0, -1, SLOTS + 1])
def test_a_ring_without_shards_or_with_too_many_is_refused(shard_count: int) -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        Ring(shard_count)


def test_a_process_builds_each_ring_once() -> None:
    assert ring_of(3) is ring_of(3)
    assert ring_of(3).shard_count == 3
