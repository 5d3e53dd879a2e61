"""Which shard owns a wallet: a consistent-hash ring.

The same answer in every process, version and platform (no salted ``hash()``). Adding a shard
to N moves about 1/(N+1) of the wallets, all of them to the new shard.
"""

from bisect import bisect_right
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from wallet.ids import WalletId

POINTS_PER_SHARD: Final = 256
"""Points per shard on the ring: enough for shares within about 10 % of each other."""


def _position(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Ring:
    """An immutable ring of shards 0 to ``shard_count`` - 1."""

    __slots__ = ("_owners", "_positions", "shard_count")

    def __init__(self, shard_count: int) -> None:
        if shard_count < 1:
            raise ValueError("a ring needs at least one shard")
        self.shard_count = shard_count
        points = sorted(
            (_position(f"shard-{shard}/{point}"), shard)
            for shard in range(shard_count)
            for point in range(POINTS_PER_SHARD)
        )
        self._positions = [position for position, _ in points]
        self._owners = [shard for _, shard in points]

    def shard_of(self, wallet_id: WalletId) -> int:
        """The shard that owns ``wallet_id``: the next point clockwise."""
        index = bisect_right(self._positions, _position(wallet_id))
        return self._owners[index % len(self._owners)]


@lru_cache(maxsize=8)
def ring_of(shard_count: int) -> Ring:
    """The ring of ``shard_count`` shards, built once per process."""
    return Ring(shard_count)
