"""Which shard owns a wallet: a consistent-hash ring with slots of equal size.

A wallet has a slot for ever (`wallet.slots`), and the ring assigns slots to shards. Shards are
added one after the other: a new one takes the same number of slots from each of the others, so it
gets its share, and no slot moves between two others. The ring of N shards is the one of N - 1 with
one more. So the shares of two shards differ by at most one slot: with N shards the largest is less
than 1 + N / 16,384 times the mean.

The same answer in every process, version and platform (no salted ``hash()``).
"""

from array import array
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from wallet.ids import WalletId
from wallet.slots import SLOTS, SlotRange, slot_of


class Ring:
    """An immutable ring of shards 0 to ``shard_count`` - 1."""

    __slots__ = ("_owners", "_ranges", "shard_count")

    def __init__(self, shard_count: int) -> None:
        """Raises ValueError: no shards, or more than there are slots."""
        if not 1 <= shard_count <= SLOTS:
            raise ValueError(f"a ring needs at least one shard and has at most {SLOTS}")
        self.shard_count = shard_count
        slots = _assign(shard_count)
        self._ranges = [tuple(_ranges(owned)) for owned in slots]
        self._owners = array("H", bytes(2 * SLOTS))
        for shard, owned in enumerate(slots):
            for slot in owned:
                self._owners[slot] = shard

    def shard_of(self, wallet_id: WalletId) -> int:
        """The shard that owns ``wallet_id``."""
        return self._owners[slot_of(wallet_id)]

    def slots_of(self, shard: int) -> tuple[SlotRange, ...]:
        """The slots that ``shard`` owns, in order; ranges don't touch each other."""
        return self._ranges[shard]


def _assign(shard_count: int) -> list[list[int]]:
    """Each shard's slots, in order."""
    slots = [list(range(SLOTS))]
    for new in range(1, shard_count):
        share, remainder = divmod(SLOTS, new + 1)
        taken: list[int] = []
        largest_first = sorted(range(new), key=lambda shard: (-len(slots[shard]), shard))
        for rank, shard in enumerate(largest_first):
            kept = share + (rank < remainder)
            # From the end, so that a shard's slots form few ranges.
            taken += slots[shard][kept:]
            del slots[shard][kept:]
        slots.append(sorted(taken))
    return slots


def _ranges(owned: list[int]) -> Iterator[SlotRange]:
    ends = [at for at, (one, next_) in enumerate(pairwise(owned), start=1) if next_ != one + 1]
    for begin, end in pairwise([0, *ends, len(owned)]):
        yield SlotRange(owned[begin], owned[end - 1])


@lru_cache(maxsize=8)
def ring_of(shard_count: int) -> Ring:
    """The ring of ``shard_count`` shards, built once per process."""
    return Ring(shard_count)
