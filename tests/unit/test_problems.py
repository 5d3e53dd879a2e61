"""Problems: every code has an explanation, every refusal and failure a document."""

from typing import Any

import msgspec
import pytest
from starlette.responses import Response

from actors.rpc.messages import Applied, Failure, FailureCode, ItemResult, KeyClaimed, Refused
from serve_app.http.problems import (
    PROBLEM_TYPES,
    FieldError,
    ProblemError,
    problem_response,
    validation_problem,
)
from serve_app.http.responses import failure_problem, item_response, refusal_document, single_result
from wallet.refusals import Refusal, RefusalCode

STATUSES = {
    "malformed_json": 400,
    "not_found": 404,
    "wallet_not_found": 404,
    "transfer_not_found": 404,
    "problem_not_found": 404,
    "method_not_allowed": 405,
    "insufficient_funds": 409,
    "balance_out_of_range": 409,
    "transfer_already_completed": 409,
    "transfer_already_failed": 409,
    "reference_id_taken": 409,
    "batch_refused": 409,
    "wallet_frozen": 409,
    "wallet_closed": 409,
    "version_not_reached": 409,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "validation_error": 422,
    "idempotency_key_reused": 422,
    "overloaded": 429,
    "internal_error": 500,
    "unavailable": 503,
    "deadline_exceeded": 504,
}
"""Codes and statuses that clients branch on: adding is fine, changing is not."""


DONE = Applied(id="1", version=1, body=b"{}")


def document(response: Response) -> dict[str, object]:
    found: dict[str, object] = msgspec.json.decode(response.body)
    return found


def refusal(code: RefusalCode, **fields: str) -> Refused:
    return Refused(refusal=Refusal(code=code, detail="why", request_id="r1", **fields))


def test_codes_and_statuses_are_a_contract() -> None:
    known = {code: kind.status for code, kind in PROBLEM_TYPES.items() if code in STATUSES}
    assert known == STATUSES


@pytest.mark.parametrize("code", [*RefusalCode, *FailureCode])
def test_everything_the_write_side_says_is_in_the_catalogue(code: str) -> None:
    kind = PROBLEM_TYPES[code]
    assert kind.title
    assert kind.remedy


@pytest.mark.parametrize("code", RefusalCode)
def test_a_refusal_becomes_its_problem(code: RefusalCode) -> None:
    response = item_response(refusal(code), 201, location="/somewhere")
    found = document(response)
    assert response.status_code == PROBLEM_TYPES[code].status == found["status"]
    assert response.headers["content-type"] == "application/problem+json"
    assert "location" not in response.headers
    assert int(response.headers["content-length"]) == len(response.body)
    assert (found["type"], found["code"]) == (f"/problems/{code}", code)
    assert (found["detail"], found["request_id"]) == ("why", "r1")


def test_a_refused_amount_points_to_itself() -> None:
    found = refusal_document(refusal(RefusalCode.VALIDATION_ERROR, pointer="/amount").refusal)
    assert found.errors == [FieldError(pointer="/amount", detail="why")]


def test_an_accepted_answer_is_passed_on_as_it_is() -> None:
    response = item_response(Applied(id="1", version=1, body=b'{"id":1}'), 201, location="/there")
    assert (response.status_code, response.body) == (201, b'{"id":1}')
    assert dict(response.headers) == {
        "content-type": "application/json",
        "content-length": "8",
        "location": "/there",
    }


@pytest.mark.parametrize("answer", [DONE, refusal(RefusalCode.INSUFFICIENT_FUNDS)])
def test_a_replay_is_marked_and_nothing_else_is(answer: ItemResult) -> None:
    replayed = msgspec.structs.replace(answer, replayed=True)
    assert "idempotency-replayed" not in item_response(answer, 200).headers
    assert item_response(replayed, 200).headers["idempotency-replayed"] == "true"
    assert item_response(replayed, 200).body == item_response(answer, 200).body


def make_failure(code: FailureCode, **fields: Any) -> Failure:
    values: dict[str, Any] = {"code": code, "detail": "why", "applied": "unknown"}
    return Failure(**values | fields)


@pytest.mark.parametrize("code", [FailureCode.UNAVAILABLE, FailureCode.DEADLINE_EXCEEDED])
@pytest.mark.parametrize("applied", ["no", "unknown"])
def test_a_failure_says_whether_it_may_have_been_applied(code: FailureCode, applied: str) -> None:
    problem = failure_problem(make_failure(code, applied=applied))
    assert document(problem_response(problem, "r1"))["applied"] == applied


def test_an_overload_is_never_applied_and_needs_not_say_so() -> None:
    response = problem_response(failure_problem(make_failure(FailureCode.OVERLOADED)), "r1")
    assert "applied" not in document(response)


@pytest.mark.parametrize(("retry_after_s", "reported"), [(0.0, "1"), (0.2, "1"), (1.2, "2")])
def test_a_failure_has_retry_after_in_whole_seconds(retry_after_s: float, reported: str) -> None:
    for code in (FailureCode.OVERLOADED, FailureCode.UNAVAILABLE):
        problem = failure_problem(make_failure(code, retry_after_s=retry_after_s))
        assert problem_response(problem, "r1").headers["retry-after"] == reported


def test_the_only_answer_is_the_answer_or_the_failure_as_a_problem() -> None:
    declined = refusal(RefusalCode.INSUFFICIENT_FUNDS)
    assert (single_result(DONE), single_result(declined)) == (DONE, declined)
    with pytest.raises(ProblemError) as problem:
        single_result(make_failure(FailureCode.UNAVAILABLE))
    assert problem.value.code == "unavailable"


def test_a_result_that_no_single_command_has_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="unexpected KeyClaimed"):
        single_result(KeyClaimed(request_id="r1"))


def test_a_problem_without_errors_does_not_list_any() -> None:
    found = document(problem_response(ProblemError("not_found", "why"), "r1"))
    assert set(found) == {"type", "title", "status", "detail", "code", "request_id"}


def test_a_validation_problem_names_the_first_and_counts_the_rest() -> None:
    one, two = FieldError(pointer="/a", detail="x"), FieldError(pointer="/b", detail="y")
    assert validation_problem(one).detail == "/a: x"
    assert validation_problem(one, two).detail == "/a: x (and 1 more)"
    assert validation_problem(one, two).errors == [one, two]
