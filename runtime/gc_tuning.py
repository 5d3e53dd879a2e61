"""Garbage collector settings that keep pauses short."""

import gc
from typing import Final

GEN0_THRESHOLD: Final = 20_000
"""New objects between two collections of generation 0. A batch of a thousand commands allocates ten
times Python's default of 700, all of them alive until the response: most collections found nothing
and took a tenth of a shard's time."""


def freeze_startup_objects() -> None:
    """Exclude all existing objects from garbage collection, permanently (`gc.freeze`).

    Call it once a process is set up. Objects of Ray, its libraries and our modules live as long as
    the process and are most of its objects. A full collection scanned all of them each time and
    blocked the event loop: 60 to 90 ms every two seconds in a shard under load. Later objects are
    collected as usual, less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GEN0_THRESHOLD, *gc.get_threshold()[1:])
