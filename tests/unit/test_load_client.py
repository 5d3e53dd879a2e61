"""The load client retries what is safe to retry, and nothing else."""

from collections.abc import Sequence
from itertools import count

import pytest

from tests.simulation.fault_probabilities import SeededRandom
from tests.support.load_client import (
    BATCH_REFUSED,
    CallTiming,
    LoadClient,
    RequestedOperation,
    RetryPolicy,
    attempt_at,
    failure_in,
    retryable,
)
from verification.facts import ClientCall, Outcome

KEYED = RequestedOperation(intent="keyed", operation="debit", wallet_id="w", amount=5, key="k")
KEYLESS = RequestedOperation(intent="keyless", operation="debit", wallet_id="w", amount=5)
TIMING = CallTiming(1, 2)

UNKNOWN: Outcome = "unknown"


class ScriptedTransport:
    """Implements `Transport`: all operations of a call get the next scripted outcome."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = iter(outcomes)
        self.sent: list[list[str]] = []

    async def send(
        self, operations: Sequence[RequestedOperation], *, atomic: bool
    ) -> list[ClientCall]:
        self.sent.append([operation.intent for operation in operations])
        outcome = next(self._outcomes)
        code = BATCH_REFUSED if atomic and outcome == "not_applied" else ""
        return [attempt_at(operation, TIMING, outcome, code=code) for operation in operations]

    async def read(self, wallet_id: str, *, min_version: int, strong: bool) -> ClientCall | None:
        raise NotImplementedError


def make_client(
    transport: ScriptedTransport, record: list[ClientCall], **policy: float
) -> LoadClient:
    retry = RetryPolicy(**{"wait_s": 0.0, "wait_max_s": 0.0} | policy)  # type: ignore[arg-type]
    ticks = count(step=1_000_000_000)
    return LoadClient(
        transport,
        lambda made, _: record.extend(made),
        SeededRandom("test"),
        retry,
        lambda: next(ticks),
    )


@pytest.mark.parametrize(
    ("outcome", "code", "retried"),
    [
        ("acknowledged", "", []),
        ("refused", "insufficient_funds", []),
        ("not_applied", "overloaded", [KEYED, KEYLESS]),
        ("unknown", "ReadError", [KEYED]),
    ],
)
def test_only_what_cannot_happen_twice_is_retried(
    outcome: Outcome, code: str, retried: list[RequestedOperation]
) -> None:
    operations = [KEYED, KEYLESS]
    attempts = [attempt_at(one, TIMING, outcome, code=code) for one in operations]
    assert retryable(operations, attempts, atomic=False) == retried


async def test_a_client_retries_until_it_knows_and_records_every_call() -> None:
    transport = ScriptedTransport("not_applied", "unknown", "acknowledged")
    record: list[ClientCall] = []
    assert await make_client(transport, record).pursue([KEYED, KEYLESS]) == 0
    assert transport.sent == [["keyed", "keyless"], ["keyed", "keyless"], ["keyed"]]
    assert [(one.operation_id, one.outcome) for one in record] == [
        ("keyed", "not_applied"),
        ("keyless", "not_applied"),
        ("keyed", "unknown"),
        ("keyless", "unknown"),
        ("keyed", "acknowledged"),
    ]


async def test_a_refused_atomic_batch_is_not_retried() -> None:
    transport = ScriptedTransport("not_applied")
    assert await make_client(transport, []).pursue([KEYED, KEYLESS], atomic=True) == 0
    assert len(transport.sent) == 1


@pytest.mark.parametrize("policy", [{"attempts_max": 3}, {"give_up_s": 2.5}])
async def test_an_outcome_that_stays_unknown_is_given_up(policy: dict[str, float]) -> None:
    transport = ScriptedTransport(*(UNKNOWN,) * 9)
    assert await make_client(transport, [], **policy).pursue([KEYED]) == 1
    assert len(transport.sent) <= 3


def test_waits_double_up_to_their_limit() -> None:
    policy = RetryPolicy(wait_s=0.1, wait_max_s=0.4)
    assert [policy.longest_wait_s(attempt) for attempt in (0, 1, 2, 3, 999)] == [
        0.1,
        0.2,
        0.4,
        0.4,
        0.4,
    ]


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        ("acknowledged", None),
        ("refused", None),
        ("unknown", "503 unavailable"),
        ("not_applied", "503 unavailable, not applied"),
    ],
)
def test_a_failure_says_whether_the_write_may_have_happened(
    outcome: Outcome, failure: str | None
) -> None:
    attempt = attempt_at(KEYED, TIMING, outcome, status=503, code="unavailable")
    assert failure_in(attempt) == failure
