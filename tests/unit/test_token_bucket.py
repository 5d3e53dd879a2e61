"""The rate limit of a key: bounded in any interval, and every client is served eventually."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.auth.token_bucket import TokenBucket


def test_a_burst_comes_through_and_then_one_a_period() -> None:
    bucket = TokenBucket(rate_per_s=2, burst=3, now_s=0)

    assert [bucket.take(1, 0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(1, 0) == pytest.approx(0.5)
    assert bucket.take(1, 0.5) == 0
    assert bucket.take(1, 0.5) == pytest.approx(0.5)


def test_a_pause_gains_no_more_than_a_burst() -> None:
    bucket = TokenBucket(rate_per_s=10, burst=2, now_s=0)

    assert [bucket.take(1, 1_000) > 0 for _ in range(3)] == [False, False, True]


def test_a_batch_larger_than_a_burst_passes_and_a_pause_follows() -> None:
    bucket = TokenBucket(rate_per_s=10, burst=5, now_s=0)

    assert bucket.take(1, 0) == 0
    bucket.charge(99)
    assert bucket.take(1, 0) == pytest.approx(9.6)
    assert bucket.take(1, 9.7) == 0


def test_a_clock_that_goes_back_gains_nothing() -> None:
    bucket = TokenBucket(rate_per_s=1, burst=1, now_s=10)

    assert bucket.take(1, 10) == 0
    assert bucket.take(1, 5) == pytest.approx(1.0)


@given(
    rate=st.floats(0.1, 100),
    burst=st.floats(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 20)), max_size=60),
)
def test_no_time_lets_more_through_than_was_promised(
    rate: float, burst: float, steps: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(rate_per_s=rate, burst=burst, now_s=0)
    now = 0.0
    through, largest = 0, 0
    for pause, count in steps:
        now += pause
        wait = bucket.take(count, now)
        if wait == 0:
            through += count
            largest = max(largest, count)
            assert through <= burst + rate * now + largest + 1e-6
        else:
            assert bucket.take(0, now + wait + 1e-9) == 0
            now += wait + 1e-9
