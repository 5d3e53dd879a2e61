"""Startup objects are frozen and cause no GC pauses; later garbage is still collected."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from runtime.gc_tuning import GEN0_THRESHOLD, freeze_startup_objects


class Node:
    """An object that can refer to itself."""

    def __init__(self) -> None:
        self.itself: Node | None = None


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_was_there_is_passed_over() -> None:
    node = Node()
    assert any(one is node for one in gc.get_objects())
    freeze_startup_objects()
    assert not any(one is node for one in gc.get_objects())


def test_garbage_that_comes_later_is_collected() -> None:
    freeze_startup_objects()
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None


def test_a_growing_batch_is_not_scanned_over_and_over() -> None:
    freeze_startup_objects()
    before = sum(generation["collections"] for generation in gc.get_stats())
    batch = [[number] for number in range(GEN0_THRESHOLD // 2)]
    assert sum(generation["collections"] for generation in gc.get_stats()) == before
    assert len(batch) == GEN0_THRESHOLD // 2


def test_young_garbage_is_still_found_without_being_asked_for() -> None:
    freeze_startup_objects()
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    kept = [[number] for number in range(2 * GEN0_THRESHOLD)]
    assert gone() is None
    assert len(kept) == 2 * GEN0_THRESHOLD
