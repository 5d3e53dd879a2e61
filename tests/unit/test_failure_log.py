"""Every answer of 5xx leaves a line with its request, and an outage does not fill the disk."""

from typing import Any

import pytest
from starlette.requests import Request
from structlog.testing import capture_logs

from serve_app.asgi.failure_log import FailureLog
from serve_app.http.problems import ProblemError

UNAVAILABLE = ProblemError("unavailable", "The database does not respond.", applied="unknown")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def request(request_id: str = "r-1") -> Request:
    scope: dict[str, Any] = {
        "type": "http",
        "headers": [(b"x-request-id", request_id.encode())],
        "path_params": {"wallet_id": "w-1"},
    }
    return Request(scope)


def test_a_failure_leaves_a_line_that_finds_the_request() -> None:
    with capture_logs() as logs:
        FailureLog(Clock()).record(request(), "debit_wallet", UNAVAILABLE)

    assert logs == [
        {
            "event": "request failed",
            "log_level": "warning",
            "route": "debit_wallet",
            "status": 503,
            "code": "unavailable",
            "detail": "The database does not respond.",
            "applied": "unknown",
            "left_out": 0,
            "request_id": "r-1",
            "wallet_id": "w-1",
        }
    ]


@pytest.mark.parametrize("code", ["insufficient_funds", "overloaded", "validation_error"])
def test_a_refusal_leaves_none(code: str) -> None:
    with capture_logs() as logs:
        FailureLog(Clock()).record(request(), "debit_wallet", ProblemError(code, ""))

    assert logs == []


def test_an_outage_leaves_a_bounded_number_of_lines() -> None:
    clock = Clock()
    failures = FailureLog(clock)
    with capture_logs() as logs:
        for _ in range(1_000):
            failures.record(request(), "debit_wallet", UNAVAILABLE)
        clock.now_s += 1
        failures.record(request("r-2"), "debit_wallet", UNAVAILABLE)

    assert len(logs) == 21
    assert (logs[-1]["request_id"], logs[-1]["left_out"]) == ("r-2", 980)
