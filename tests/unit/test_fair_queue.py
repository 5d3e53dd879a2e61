"""The fair queue: order within a wallet, round robin between wallets, bounds on both."""

from itertools import pairwise

import pytest

from actors.fair_queue import FairQueue, Overflow
from tests.support.domain import wallet_id
from wallet.ids import WalletId

A, B, C = wallet_id(1), wallet_id(2), wallet_id(3)


def make_queue(commands_max: int = 1_000, wallet_commands_max: int = 1_000) -> FairQueue[str]:
    return FairQueue(commands_max=commands_max, wallet_commands_max=wallet_commands_max)


def put(queue: FairQueue[str], wallet: WalletId, *names: str, commands: int = 1) -> None:
    for name in names:
        assert queue.put(wallet, name, commands) is None


def take(
    queue: FairQueue[str],
    capacity: int = 100,
    quota: int = 100,
    *,
    blocked: tuple[WalletId, ...] = (),
) -> list[str]:
    return queue.take(capacity=capacity, quota=quota, blocked=blocked).requests


def test_each_wallet_s_requests_leave_in_their_order() -> None:
    queue = make_queue()
    put(queue, A, "a1")
    put(queue, B, "b1")
    put(queue, A, "a2")
    taken = queue.take(capacity=100, quota=100)
    assert taken.requests == ["a1", "a2", "b1"]
    assert list(taken.wallets) == [A, B]
    assert taken.over_quota == set()
    assert queue.commands == 0
    assert not queue
    assert not queue.take(capacity=100, quota=100)


def test_a_take_is_no_larger_than_its_capacity() -> None:
    queue = make_queue()
    put(queue, A, *"12345")
    assert take(queue, capacity=2) == ["1", "2"]
    assert queue.commands == queue.wallet_commands(A) == 3
    assert take(queue, capacity=2) == ["3", "4"]
    assert take(queue, capacity=2) == ["5"]


def test_a_quota_leaves_capacity_to_others() -> None:
    queue = make_queue()
    put(queue, A, *(f"a{number}" for number in range(50)))
    put(queue, B, "b1", "b2")
    taken = queue.take(capacity=10, quota=4)
    assert taken.requests == ["a0", "a1", "a2", "a3", "b1", "b2"]
    assert taken.over_quota == {A}
    assert taken.wallets == {A: 4, B: 2}
    assert taken.share_of(A) == 4 / 6


def test_a_wallet_that_had_its_turn_goes_behind_the_others() -> None:
    queue = make_queue()
    put(queue, A, *(f"a{number}" for number in range(50)))
    put(queue, B, "b1")
    put(queue, C, "c1")
    assert take(queue, capacity=2, quota=2) == ["a0", "a1"]
    assert take(queue, capacity=2, quota=2) == ["b1", "c1"]
    assert take(queue, capacity=2, quota=2) == ["a2", "a3"]


def test_two_overloaded_wallets_alternate_whoever_puts_first() -> None:
    queue = make_queue()
    put(queue, A, "a1", "a2", "a3")
    put(queue, B, "b1", "b2", "b3")
    assert [take(queue, capacity=1, quota=1) for _ in range(4)] == [["a1"], ["b1"], ["a2"], ["b2"]]


def test_no_overloaded_wallet_waits_more_than_a_turn() -> None:
    queue = make_queue()
    for wallet, name in ((A, "a"), (B, "b"), (C, "c")):
        put(queue, wallet, *(name for _ in range(30)))
    taken = [take(queue, capacity=6, quota=3) for _ in range(12)]
    assert {len(one) for one in taken} == {6}
    for earlier, later in pairwise(taken):
        assert set(earlier) | set(later) == {"a", "b", "c"}


def test_a_quota_holds_for_a_lone_wallet_too() -> None:
    queue = make_queue()
    put(queue, A, *"123456")
    taken = queue.take(capacity=5, quota=2)
    assert taken.requests == ["1", "2"]
    assert taken.over_quota == {A}


def test_a_lone_quota_holds_once_nobody_else_waits() -> None:
    queue = make_queue()
    put(queue, A, *"123456")
    taken = queue.take(capacity=5, quota=2, lone_quota=5)
    assert taken.requests == list("12345")
    assert taken.over_quota == set(), "the capacity ended its turn"

    put(queue, B, "b1", "b2", "b3")
    taken = queue.take(capacity=5, quota=2, lone_quota=5)
    assert taken.requests == ["6", "b1", "b2", "b3"], "A's turn emptied its queue"


def test_a_lone_quota_does_not_hold_while_others_wait() -> None:
    queue = make_queue()
    put(queue, A, *"123456")
    put(queue, B, "b1")
    taken = queue.take(capacity=6, quota=2, lone_quota=6)
    assert taken.requests == ["1", "2", "b1"]
    assert taken.over_quota == {A}


def test_a_blocked_wallet_keeps_its_requests_and_its_turn() -> None:
    queue = make_queue()
    put(queue, A, "a1", "a2")
    put(queue, B, "b1")
    assert take(queue, blocked=(A,)) == ["b1"]
    assert queue.wallet_commands(A) == 2
    put(queue, B, "b2")
    assert take(queue, blocked=(A, B)) == []
    assert take(queue, capacity=2) == ["a1", "a2"]


@pytest.mark.parametrize("wallet", [A, C])
def test_a_full_queue_rejects_and_keeps_what_it_has(wallet: WalletId) -> None:
    queue = make_queue(commands_max=3)
    put(queue, A, "1", "2")
    put(queue, B, "3")
    assert queue.overflow(wallet, 1) is Overflow.QUEUE
    assert queue.put(wallet, "4", 1) is Overflow.QUEUE
    assert queue.commands == 3
    assert take(queue) == ["1", "2", "3"]


def test_a_full_wallet_rejects_and_others_do_not() -> None:
    queue = make_queue(wallet_commands_max=2)
    put(queue, A, "1", "2")
    assert queue.overflow(A, 1) is Overflow.WALLET
    assert queue.put(A, "more", 1) is Overflow.WALLET
    assert queue.overflow(B, 1) is None
    put(queue, B, "3")
    assert take(queue) == ["1", "2", "3"]
    put(queue, A, "4")


def test_a_partly_served_wallet_has_as_much_room_as_was_taken() -> None:
    queue = make_queue(wallet_commands_max=3)
    put(queue, A, "1", "2", "3")
    take(queue, capacity=1)
    put(queue, A, "4")
    assert queue.put(A, "5", 1) is Overflow.WALLET


def test_bounds_count_commands_and_not_requests() -> None:
    queue = make_queue(commands_max=10, wallet_commands_max=6)
    put(queue, A, "1", commands=4)
    assert queue.put(A, "too large", 3) is Overflow.WALLET
    put(queue, B, "2", commands=6)
    assert queue.put(C, "one more", 1) is Overflow.QUEUE
    assert (queue.commands, queue.wallet_commands(A), queue.wallet_commands(C)) == (10, 4, 0)


def test_a_lone_request_always_fits() -> None:
    queue = make_queue(commands_max=2, wallet_commands_max=2)
    put(queue, A, "huge", commands=9)
    assert queue.put(A, "more", 1) is not None
    assert take(queue, capacity=3, quota=1) == ["huge"]


def test_a_request_is_never_split() -> None:
    queue = make_queue()
    put(queue, A, "1", "2", commands=3)
    assert take(queue, capacity=5) == ["1"]
    assert take(queue, capacity=5) == ["2"]


def test_a_request_larger_than_the_quota_is_a_turn_of_its_own() -> None:
    queue = make_queue()
    put(queue, A, "a1")
    put(queue, B, "huge", commands=9)
    put(queue, B, "b2")
    taken = queue.take(capacity=20, quota=2)
    assert taken.requests == ["a1", "huge"]
    assert taken.over_quota == {B}


def test_a_request_without_capacity_is_the_first_of_the_next_take() -> None:
    queue = make_queue()
    put(queue, A, *(f"a{number}" for number in range(30)))
    put(queue, B, "large", commands=10)
    put(queue, C, "c1")
    assert take(queue, capacity=10, quota=4) == ["a0", "a1", "a2", "a3"]
    assert take(queue, capacity=10, quota=4) == ["large"]
    assert take(queue, capacity=10, quota=4) == ["c1", "a4", "a5", "a6", "a7"]


def test_a_large_request_has_its_turn_among_overloaded_wallets() -> None:
    queue = make_queue()
    put(queue, A, *("a" for _ in range(300)))
    put(queue, B, *("b" for _ in range(30)), commands=6)
    put(queue, C, "large", commands=10)
    taken = [take(queue, capacity=20, quota=10) for _ in range(5)]
    assert "large" in [name for one in taken for name in one]
