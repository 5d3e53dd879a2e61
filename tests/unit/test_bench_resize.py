"""The results of a change of the shard count: the phase of each request, and moved wallets."""

import pytest

from bench.reshard import moved_share, phase
from tests.support.steady_load import RequestOutcome


def sent(due_s: float, took_s: float, *failures: str) -> RequestOutcome:
    return RequestOutcome(due_s=due_s, took_s=took_s, failures=failures)


def test_a_request_counts_where_it_was_due_whenever_it_was_answered() -> None:
    some = [sent(1.0, 0.010), sent(1.9, 5.0, "503"), sent(2.0, 0.020)]

    before, during = phase(some, 1.0, 2.0), phase(some, 2.0, 3.0)

    assert (before["requests"], before["failed_attempts"]) == (2, 1)
    assert (before["p50_ms"], before["longest_ms"]) == (10.0, 5000.0)
    assert (during["requests"], during["failed_attempts"], during["p99_ms"]) == (1, 0, 20.0)


def test_a_time_without_requests_has_no_longest_one() -> None:
    assert phase([], 0.0, 1.0)["longest_ms"] is None


@pytest.mark.parametrize(("before", "after"), [(2, 3), (4, 5), (4, 3)])
def test_a_shard_more_or_less_moves_its_own_share_and_no_more(before: int, after: int) -> None:
    assert moved_share(before, after, wallets=5_000) == pytest.approx(
        1 / max(before, after), abs=0.05
    )
