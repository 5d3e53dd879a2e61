"""What a process is made of costs no pause; what it leaves behind is still collected."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from wallet.garbage import YOUNG_MAX, spare_what_is_here


class Node:
    """Something that can hold itself."""

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
    spare_what_is_here()
    assert not any(one is node for one in gc.get_objects())


def test_garbage_that_comes_later_is_collected() -> None:
    spare_what_is_here()
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None


def test_a_batch_in_the_making_is_not_looked_at_over_and_over() -> None:
    spare_what_is_here()
    looks = sum(generation["collections"] for generation in gc.get_stats())
    batch = [[number] for number in range(YOUNG_MAX // 2)]
    assert sum(generation["collections"] for generation in gc.get_stats()) == looks
    assert len(batch) == YOUNG_MAX // 2


def test_young_garbage_is_still_found_without_being_asked_for() -> None:
    spare_what_is_here()
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    kept = [[number] for number in range(2 * YOUNG_MAX)]
    assert gone() is None
    assert len(kept) == 2 * YOUNG_MAX
