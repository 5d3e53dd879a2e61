"""Streams over HTTP: one line per item and one per result, concurrently."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.api import Api, new_id
from tests.e2e.problems import assert_problem
from tests.support.running_service import RunningService

_MANY = "/v1/transfers/batch"


def _debit(amount: str = "1") -> dict[str, Any]:
    return {"type": "debit", "amount": amount, "status": "completed"}


def _lines(items: list[Any]) -> Iterator[bytes]:
    """One line per item, in chunks that are cut anywhere."""
    text = b"".join(json.dumps(item).encode() + b"\n" for item in items)
    for start in range(0, len(text), 7_001):
        yield text[start : start + 7_001]


def _stream(api: Api, content: Any) -> list[Any]:
    headers = {"Content-Type": "application/x-ndjson"}
    with api.http.stream("POST", _MANY, content=content, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        return [json.loads(line) for line in answer.iter_lines()]


def test_thousands_of_lines_are_answered_a_line_each_in_order(api: Api) -> None:
    wallets = [api.new_wallet() for _ in range(4)]
    items = [{"wallet_id": wallets[n % 4], **_debit(f"0.{n % 90 + 10}")} for n in range(4_000)]

    results = _stream(api, _lines(items))

    assert [result["status"] for result in results] == [201] * 4_000
    for item, result in zip(items, results, strict=True):
        assert result["transfer"]["wallet_id"] == item["wallet_id"]
        assert result["transfer"]["amount"] == item["amount"]
    assert {api.state(wallet)["version"] for wallet in wallets} == {1_001}


def test_a_line_that_is_wrong_spoils_no_other(api: Api) -> None:
    wallet = api.new_wallet()
    good = json.dumps({"wallet_id": wallet, **_debit("1")}).encode()
    unknown = json.dumps({"wallet_id": new_id(), **_debit("1")}).encode()
    lines = [good, b"{", b"", b'{"wallet_id": 7}', b"\xff", unknown, good, b"[]", good]

    results = _stream(api, b"\n".join(lines))

    assert [result["status"] for result in results] == [201, 400, 422, 400, 404, 201, 422, 201]
    assert results[1]["problem"]["code"] == "malformed_json"
    assert api.state(wallet)["balance"] == "3.00"


@pytest.mark.parametrize("size", [1_000, 7_001, 10**6])
def test_a_line_that_is_too_long_gets_its_own_413_however_it_is_sent(api: Api, size: int) -> None:
    wallet = api.new_wallet()
    good = json.dumps({"wallet_id": wallet, **_debit("1")}).encode()
    body = b"\n".join([good, b"x" * 100_000, good, good, b"y" * 200_000, good, b"z" * 100_000])

    results = _stream(api, (body[start : start + size] for start in range(0, len(body), size)))

    assert [result["status"] for result in results] == [201, 413, 201, 201, 413, 201, 413]
    assert api.state(wallet)["version"] == 5


def test_who_sends_a_whole_stream_before_reading_any_answer_is_not_stuck(
    local_service: RunningService, api: Api
) -> None:
    # An engine in front of containers has a proxy with buffers of its own.
    wallets = [api.new_wallet() for _ in range(8)]
    lines = [json.dumps({"wallet_id": wallet, **_debit("0.01")}) for wallet in wallets]
    body = "\n".join(lines * 25_000).encode()
    url = urlsplit(local_service.url)
    assert url.hostname is not None
    headers = {"Content-Type": "application/x-ndjson"}

    # This client sends all of the body before it reads anything.
    with closing(HTTPConnection(url.hostname, url.port, timeout=60)) as connection:
        connection.connect()
        # The kernel would let the buffers of this socket grow until they hold half of the results.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        connection.request("POST", _MANY, body, headers)
        answer = connection.getresponse()
        results = [json.loads(line) for line in answer.read().splitlines()]

    *done, last = results
    assert {result["status"] for result in done} == {201}
    assert (last["status"], last["problem"]["code"]) == (408, "answers_not_read")
    assert last["problem"]["applied"] == "no"
    versions = [api.state(wallet)["version"] for wallet in wallets]
    assert sum(versions) - len(wallets) == len(done) > 10_000


def test_an_empty_stream_has_no_results(api: Api) -> None:
    assert _stream(api, b"") == []


def test_a_streams_items_have_keys_of_their_own(api: Api) -> None:
    wallet = api.new_wallet()
    item = {"wallet_id": wallet, **_debit("1"), "idempotency_key": new_id()}

    first, again = (_stream(api, json.dumps(item).encode()) for _ in range(2))

    assert [result["status"] for result in (*first, *again)] == [201, 201]
    assert again[0]["transfer"] == first[0]["transfer"]
    assert again[0]["replayed"] is True
    assert api.state(wallet)["balance"] == "1.00"


def test_a_stream_as_a_whole_has_no_key(api: Api) -> None:
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": new_id()}

    answer = api.http.post(_MANY, content=b"", headers=headers)

    assert_problem(answer, 422, "validation_error", pointer="#header/Idempotency-Key")
