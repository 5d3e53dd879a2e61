"""What a process is made of costs no pause; what it leaves behind is still collected."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from wallet.garbage import spare_what_is_here


class Node:
    """Something that can hold itself."""

    def __init__(self) -> None:
        self.itself: Node | None = None


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


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
