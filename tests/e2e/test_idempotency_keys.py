"""Idempotency keys over HTTP: a repeated request gets the first response and is applied once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.api import Api, new_id
from tests.e2e.problems import assert_problem

Send = Callable[..., httpx.Response]

_REPLAYED = "idempotency-replayed"


def assert_replay(first: httpx.Response, again: httpx.Response) -> None:
    """``again`` equals ``first`` and is marked as a replay."""
    assert _REPLAYED not in first.headers
    assert again.headers[_REPLAYED] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers.get("location") == first.headers.get("location")


@pytest.mark.parametrize("status", ["pending", "completed"])
@pytest.mark.parametrize("kind", ["debit", "credit"])
def test_a_repeated_transfer_is_made_once(api: Api, kind: str, status: str) -> None:
    wallet, key = api.new_wallet("10"), new_id()
    path = f"/v1/wallet/{wallet}/transfers/{kind}"
    body = {"amount": "1.50", "status": status, "metadata": {"a": "1", "b": "2"}}

    first = api.post(path, body, key=key)
    after = api.state(wallet)
    again = api.post(path, body, key=key)

    assert first.status_code == 201
    assert_replay(first, again)
    assert api.state(wallet) == after


def test_the_same_request_may_be_spelled_otherwise(api: Api) -> None:
    wallet, key = api.new_wallet(), new_id()
    first = api.debit(wallet, {"amount": "1.5", "metadata": {"a": "1", "b": "2"}}, key=key)

    again = api.debit(
        wallet.upper(),
        {"status": "pending", "metadata": {"b": "2", "a": "1"}, "amount": "1.50"},
        key=key,
    )

    assert_replay(first, again)


@pytest.mark.parametrize("how", ["complete", "revert"])
def test_a_repeated_settlement_is_made_once(api: Api, how: str) -> None:
    wallet, key = api.new_wallet("10"), new_id()
    transfer = api.credit(wallet, {"amount": "1"}).json()["id"]

    first = api.settle(wallet, transfer, how, key=key)
    again = api.settle(wallet, transfer, how, {}, key=key)

    assert_replay(first, again)


@pytest.mark.parametrize("body", [None, {"currency": "EUR", "metadata": {"a": "b"}}])
def test_a_repeated_creation_opens_one_wallet(api: Api, body: object) -> None:
    key = new_id()

    assert_replay(api.create(body, key=key), api.create(body, key=key))


def test_a_repeated_creation_is_no_conflict_with_its_own_reference_id(api: Api) -> None:
    key, body = new_id(), {"reference_id": new_id()}

    assert_replay(api.create(body, key=key), api.create(body, key=key))


def test_a_refusal_is_remembered_even_when_the_money_has_come_since(api: Api) -> None:
    wallet, key = api.new_wallet("1"), new_id()
    refused = api.credit(wallet, {"amount": "5"}, key=key)
    assert_problem(refused, 409, "insufficient_funds")
    api.debit(wallet, {"amount": "100", "status": "completed"})

    again = api.credit(wallet, {"amount": "5"}, key=key)

    assert_replay(refused, again)
    assert api.state(wallet)["balance"] == "101.00"


def test_a_settlement_that_was_refused_stays_refused(api: Api) -> None:
    wallet, key = api.new_wallet("1"), new_id()
    transfer = api.credit(wallet, {"amount": "1"}).json()["id"]
    api.settle(wallet, transfer, "revert")

    refused = api.settle(wallet, transfer, "complete", key=key)

    assert_problem(refused, 409, "transfer_already_failed")
    assert_replay(refused, api.settle(wallet, transfer, "complete", key=key))


def test_a_reference_id_that_was_taken_stays_refused_under_its_key(api: Api) -> None:
    key, body = new_id(), {"reference_id": new_id()}
    api.create(body)

    refused = api.create(body, key=key)

    assert_problem(refused, 409, "reference_id_taken")
    assert_replay(refused, api.create(body, key=key))


def test_what_never_reached_a_decision_is_not_remembered(api: Api) -> None:
    wallet, key = api.new_wallet(), new_id()
    headers = {"Content-Type": "text/plain", "Idempotency-Key": key}
    path = f"/v1/wallet/{wallet}/transfers/debit"

    assert_problem(api.debit(wallet, {"amount": "0"}, key=key), 422, "validation_error")
    assert_problem(api.debit(wallet, {"amount": "0.001"}, key=key), 422, "validation_error")
    assert_problem(
        api.http.post(path, content=b'{"amount": "1"}', headers=headers),
        415,
        "unsupported_media_type",
    )

    made = api.debit(wallet, {"amount": "1"}, key=key)

    assert (made.status_code, _REPLAYED in made.headers) == (201, False)


def _other_requests(wallet: str, transfer: str) -> dict[str, tuple[str, Any]]:
    base = f"/v1/wallet/{wallet}/transfers"
    return {
        "another amount": (f"{base}/debit", {"amount": "1.51"}),
        "another status": (f"{base}/debit", {"amount": "1.50", "status": "completed"}),
        "a reference_id": (f"{base}/debit", {"amount": "1.50", "reference_id": "r"}),
        "metadata": (f"{base}/debit", {"amount": "1.50", "metadata": {"a": "b"}}),
        "the other direction": (f"{base}/credit", {"amount": "1.50"}),
        "a completion": (f"{base}/{transfer}/complete", None),
        "a reversal": (f"{base}/{transfer}/revert", None),
        "a batch": (f"{base}/batch", {"items": [{"type": "debit", "amount": "1.50"}]}),
    }


@pytest.mark.parametrize("other", list(_other_requests("", "")))
def test_a_key_belongs_to_one_request_permanently(api: Api, other: str) -> None:
    wallet, key = api.new_wallet("10"), new_id()
    transfer = api.debit(wallet, {"amount": "1.50"}, key=key).json()["id"]
    before = api.state(wallet)
    path, body = _other_requests(wallet, transfer)[other]

    assert_problem(api.post(path, body, key=key), 422, "idempotency_key_reused")

    assert api.state(wallet) == before


def test_a_creations_key_belongs_to_one_creation(api: Api) -> None:
    key = new_id()
    api.create({"currency": "USD"}, key=key)

    assert_problem(api.create({"currency": "EUR"}, key=key), 422, "idempotency_key_reused")


def test_a_key_is_scoped_to_one_wallet(api: Api) -> None:
    one, other, key = api.new_wallet(), api.new_wallet(), new_id()

    made = [api.debit(wallet, {"amount": "1"}, key=key) for wallet in (one, other)]

    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].json()["id"] != made[1].json()["id"]


@pytest.mark.parametrize("key", ["k", "~!#$%&'()*+,-./:;<=>?@[]^_`{|}", "x" * 255])
def test_a_key_may_be_any_visible_ascii(api: Api, key: str) -> None:
    wallet = api.new_wallet()

    first = api.debit(wallet, {"amount": "1"}, key=key)

    assert_replay(first, api.debit(wallet, {"amount": "1"}, key=key))


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "schlüssel".encode()])
def test_a_key_of_anything_else_is_refused(api: Api, key: str | bytes) -> None:
    wallet = api.new_wallet()

    for path in ("/v1/wallet", f"/v1/wallet/{wallet}/transfers/debit"):
        answer = api.http.post(
            path, json={"amount": "1"}, headers=[(b"Idempotency-Key", _raw(key))]
        )
        assert_problem(answer, 422, "validation_error", pointer="#header/Idempotency-Key")
    assert api.state(wallet)["version"] == 1


def _raw(key: str | bytes) -> bytes:
    return key if isinstance(key, bytes) else key.encode()


def test_ten_at_once_under_one_key_move_the_money_once(api: Api) -> None:
    wallet, key = api.new_wallet("10"), new_id()

    def send(_number: int) -> httpx.Response:
        return api.credit(wallet, {"amount": "1", "status": "completed"}, key=key)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(send, range(10)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum(_REPLAYED not in answer.headers for answer in answers) == 1
    assert api.state(wallet)["balance"] == "9.00"


def test_ten_different_requests_at_once_under_one_key_make_one(api: Api) -> None:
    wallet, key = api.new_wallet(), new_id()

    def send(number: int) -> httpx.Response:
        return api.debit(wallet, {"amount": str(number), "status": "completed"}, key=key)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(send, range(1, 11)))

    made = [answer for answer in answers if answer.status_code == 201]
    assert len(made) == 1
    for answer in answers:
        if answer is not made[0]:
            assert_problem(answer, 422, "idempotency_key_reused")
    assert api.state(wallet)["balance"] == made[0].json()["wallet"]["balance"]
