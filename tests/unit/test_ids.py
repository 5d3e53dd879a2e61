"""New ids: version 7, ordered by time, and unique."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from serve_app.http.ids import new_id, new_request_id
from wallet.ids import canonical_uuid

every_kind = pytest.mark.parametrize("make", [new_id, new_request_id])


def milliseconds_in(name: str) -> int:
    return UUID(name).int >> 80


@every_kind
def test_a_new_id_is_a_canonical_uuid_of_version_7(make: Callable[[], str]) -> None:
    made = make()
    assert canonical_uuid(made) == made
    assert (UUID(made).version, UUID(made).variant) == (7, RFC_4122)


def test_ids_stay_with_the_clock_and_in_its_order() -> None:
    before = time.time_ns() // 1_000_000
    made = [new_id() for _ in range(20_000)]
    after = time.time_ns() // 1_000_000
    times = [milliseconds_in(one) for one in made]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after


@every_kind
def test_ids_of_a_process_are_unique_and_in_order(make: Callable[[], str]) -> None:
    made = [make() for _ in range(5_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


@every_kind
def test_threads_make_no_id_twice(make: Callable[[], str]) -> None:
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda _: [make() for _ in range(2_000)], range(4)))
    assert len({one for part in parts for one in part}) == 8_000


def test_request_ids_keep_their_order_when_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, real = new_request_id(), time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600 * 10**9)
    made = [before, *(new_request_id() for _ in range(2 * 256))]
    assert made == sorted(made)
    assert len({milliseconds_in(one) for one in made}) > 1
