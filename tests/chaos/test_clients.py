"""Clients record what the response proves, and the promises are checked against it."""

from collections import Counter

import httpx
import pytest

from tests.chaos.__main__ import rounds_of
from tests.chaos.clients import IMPATIENT
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.rounds import Result, missed_promises
from tests.support.http_transport import attempts_from
from tests.support.load_client import CallTiming, RequestedOperation

TIMING = CallTiming(1, 2)
OPERATION = RequestedOperation(intent="a", operation="debit", wallet_id="w", amount=5, key="k")
FAULT = {fault.name: fault for fault in FAULTS}


def problem(status: int, code: str, applied: str = "") -> httpx.Response:
    document = {"code": code, "detail": "d", "applied": applied, "request_id": "r"}
    return httpx.Response(status, json=document)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (httpx.Response(201, json={"id": "t", "wallet": {"version": 7}}), "acknowledged"),
        (problem(409, "insufficient_funds"), "refused"),
        (problem(429, "overloaded"), "not_applied"),
        (problem(503, "unavailable", "no"), "not_applied"),
        (problem(503, "unavailable", "unknown"), "unknown"),
        (problem(504, "deadline_exceeded", "unknown"), "unknown"),
        (problem(500, "internal_error"), "unknown"),
        (httpx.Response(502, text="<html>no problem document</html>"), "unknown"),
        (httpx.ConnectError("refused"), "not_applied"),
        (httpx.ReadError("reset"), "unknown"),
        (httpx.RemoteProtocolError("closed"), "unknown"),
    ],
)
def test_an_answer_or_none_is_what_the_client_then_knows(
    answer: httpx.Response | Exception, outcome: str
) -> None:
    (attempt,) = attempts_from([OPERATION], TIMING, answer)
    assert attempt.outcome == outcome
    assert (attempt.operation_id, attempt.key, attempt.amount) == ("a", "k", 5)


def test_each_item_of_a_batch_has_its_own_outcome() -> None:
    content = (
        b'{"items":[{"status":201,"transfer":{"id":"x", "wallet":{"version":3}}},'
        b'{"status":409,"problem":{"code":"insufficient_funds","detail":"d"},"replayed":true}]}'
    )
    done, refused = attempts_from(
        [OPERATION, OPERATION], TIMING, httpx.Response(200, content=content)
    )
    assert (done.outcome, done.version, done.replayed) == ("acknowledged", 3, False)
    assert done.body == '{"id":"x", "wallet":{"version":3}}', "to the byte: keys replay it"
    assert (refused.outcome, refused.code, refused.replayed) == (
        "refused",
        "insufficient_funds",
        True,
    )


def test_a_batch_undone_as_a_whole_was_not_applied() -> None:
    answer = httpx.Response(409, json={"code": "batch_refused", "detail": "d"})
    assert [one.outcome for one in attempts_from([OPERATION, OPERATION], TIMING, answer)] == [
        "not_applied",
        "not_applied",
    ]


def make_result(back_s: float | None, **errors: int) -> Result:
    return Result(
        faults=["kill-shard"],
        wallets=[],
        requests=1,
        errors=Counter(errors),
        longest_s=1.0,
        back_s=back_s,
        drained_s=0.0,
        lasted_s=0.0,
        violations=[],
        missed=[],
        history=[],
    )


@pytest.mark.parametrize(
    ("fault", "result", "missed"),
    [
        ("kill-shard", make_result(2.9, **{IMPATIENT: 3}), []),
        ("kill-shard", make_result(3.1), ["back within 3 s"]),
        ("kill-shard", make_result(1.0, ReadError=1), ["no error"]),
        ("kill-shard", make_result(None), ["back within 3 s"]),
        ("kill-ingress", make_result(50.0, ReadError=1), []),
    ],
)
def test_a_promise_is_missed_by_what_clients_saw(
    fault: str, result: Result, missed: list[str]
) -> None:
    assert missed_promises([FAULT[fault]], result) == missed


def test_a_seed_is_one_order_of_faults_and_a_full_run_has_them_all() -> None:
    def names(rounds: list[list[Fault]]) -> list[list[str]]:
        return [[fault.name for fault in faults] for faults in rounds]

    full = names(rounds_of("7", [], quick=False))
    assert full == names(rounds_of("7", [], quick=False))
    assert full != names(rounds_of("8", [], quick=False))
    assert {name for faults in full for name in faults} == FAULT.keys()
    assert max(map(len, full)) == 3
    assert names(rounds_of("7", ["kill-shard"], quick=True)) == [["kill-shard"]]
