"""The hash slot of a wallet: fixed for ever, in every process, version and platform.

Shards own slots (`actors.dispatch.ring`), and Postgres has an index on the slot of the outbox's
rows (migration 0011). So neither the number of slots nor the hash may change.
"""

from typing import Final, NamedTuple
from zlib import crc32

from wallet.ids import WalletId

SLOTS: Final = 16_384
"""Number of slots; a power of two."""


class SlotRange(NamedTuple):
    """Adjacent slots, both ends included."""

    first: int
    last: int


ALL_SLOTS: Final = (SlotRange(0, SLOTS - 1),)


def slot_of(wallet_id: WalletId) -> int:
    """From 0 to `SLOTS` - 1."""
    return crc32(wallet_id.encode()) & (SLOTS - 1)
