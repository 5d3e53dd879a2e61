"""Assertions for error responses of every layer."""

from typing import Any

import httpx

_KNOWN = {"type", "title", "status", "detail", "code", "request_id", "errors", "applied"}


def assert_problem(
    answer: httpx.Response, status: int, code: str, *, pointer: str | None = None
) -> Any:
    """``answer`` is the RFC 9457 problem ``code``; with ``pointer``, it names that field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["type"] == f"/problems/{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"]
    assert set(problem) <= _KNOWN
    assert "Traceback" not in answer.text
    if pointer is not None:
        assert pointer in [error["pointer"] for error in problem["errors"]], problem
    return problem
