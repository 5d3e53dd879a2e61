"""What Ray's head is told when a node drains."""

import time

import pytest

from deploy.node import ray_drain


class Head:
    """Stands for the client of Ray's head."""

    asked: tuple[object, ...] = ()
    answer = (True, "")

    def __init__(self, *, address: str) -> None:
        self._address = address

    def drain_node(self, *arguments: object) -> tuple[bool, str]:
        Head.asked = (self._address, *arguments)
        return Head.answer


@pytest.fixture(autouse=True)
def _head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_drain, "GcsClient", Head)


def test_the_deadline_is_a_time_in_milliseconds() -> None:
    before_ms = time.time() * 1000
    ray_drain.drain("10.0.0.1:6379", "ab12", deadline_s=35)

    address, node, _reason, message, deadline_ms = Head.asked
    assert (address, node, message) == ("10.0.0.1:6379", "ab12", "the node is stopped")
    assert isinstance(deadline_ms, int)
    assert -1 <= deadline_ms - before_ms - 35_000 < 30_000


def test_a_head_that_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Head, "answer", (False, "no such node"))
    with pytest.raises(RuntimeError, match="no such node"):
        ray_drain.drain("10.0.0.1:6379", "ab12", deadline_s=35)
