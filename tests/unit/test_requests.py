"""Reading requests: what is accepted, what is refused, and what the error says to send."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import Message

from runtime.settings import Settings
from serve_app.http import models, requests
from serve_app.http.problems import ProblemError
from serve_app.http.requests import (
    idempotency_key_of,
    parse_body,
    read_body,
    request_id_of,
    timeout_of,
    transfer_id_of,
    wallet_id_of,
)
from tests.support.domain import WALLET_ID
from tests.support.requests import make_request

TRANSFER = models.CreateTransferBody
WALLET = models.CreateWalletBody
SETTLEMENT = models.SettleTransferBody
SETTINGS = Settings(_env_file=None, request_timeout_s=10.0, request_timeout_max_s=60.0)


def refused(call: Callable[[], object]) -> ProblemError:
    with pytest.raises(ProblemError) as problem:
        call()
    return problem.value


def pointers(problem: ProblemError) -> dict[str, str]:
    assert problem.code == "validation_error"
    return {error.pointer: error.detail for error in problem.errors}


# -- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "amount"),
    [
        (b'{"amount":"10.50"}', "10.5"),
        (b'{"amount":"10.5"}', "10.5"),
        (b'{"amount":10}', "10"),
        (b'{"amount":"10"}', "10"),
        (b'{"amount":' + b"9" * 38 + b"}", "9" * 38),
    ],
)
def test_an_amount_is_a_decimal_string_or_a_whole_number(sent: bytes, amount: str) -> None:
    assert parse_body(TRANSFER, sent).amount == amount


@pytest.mark.parametrize(
    ("sent", "hint"),
    [
        (b"10.5", "decimal string"),
        (b"1e3", "decimal string"),
        (b"true", "decimal string"),
        (b"null", "decimal string"),
        (b"[]", "decimal string"),
        (b"{}", "decimal string"),
        (b'""', "decimal string"),
        (b'"1e3"', "no exponent"),
        (b'"-1"', "no sign"),
        (b"-1", "no sign"),
        (b'"NaN"', "decimal string"),
        (b"0", "greater than zero"),
        (b'"0.00"', "greater than zero"),
        (b"1" + b"0" * 38, "38 digits"),
        (b'"0.0000000000000000001"', "18 after the point"),
    ],
)
def test_any_other_amount_is_refused_with_a_hint(sent: bytes, hint: str) -> None:
    problem = refused(lambda: parse_body(TRANSFER, b'{"amount":' + sent + b"}"))
    found = pointers(problem)
    assert list(found) == ["/amount"]
    assert hint in found["/amount"]


@pytest.mark.parametrize("digits", [39, 5_000])
def test_a_number_of_any_length_is_refused_as_an_amount(digits: int) -> None:
    problem = refused(lambda: parse_body(TRANSFER, b'{"amount":' + b"1" * digits + b"}"))
    assert problem.code == "validation_error"


def test_a_missing_amount_is_pointed_to() -> None:
    assert pointers(refused(lambda: parse_body(TRANSFER, b""))) == {"/amount": "Field required"}


def test_unknown_fields_are_refused_and_not_ignored() -> None:
    problem = refused(lambda: parse_body(TRANSFER, b'{"amount":"1","amuont":"2","a/b~c":1}'))
    assert pointers(problem) == {
        "/amuont": "unknown field: did you mean amount?",
        "/a~1b~0c": "unknown field: remove it",
    }


def test_every_wrong_field_is_named_at_once() -> None:
    sent = b'{"amount":1.5,"status":"done","reference_id":"","metadata":{"k":1,"\\u0001":"v"}}'
    problem = refused(lambda: parse_body(TRANSFER, sent))
    assert set(pointers(problem)) == {
        "/amount",
        "/status",
        "/reference_id",
        "/metadata/k",
        "/metadata/\x01",
    }
    assert problem.detail.endswith("(and 4 more)")


@pytest.mark.parametrize("model", [WALLET, SETTLEMENT])
@pytest.mark.parametrize("sent", [b"", b"{}", b" {} "])
def test_an_empty_body_takes_every_default(model: type[BaseModel], sent: bytes) -> None:
    assert parse_body(model, sent) == parse_body(model, b'{"metadata":{}}')


@pytest.mark.parametrize("sent", [b"{", b"nope", b'{"amount":"1",}', b"\xff\xfe", b'{"a":"\xff"}'])
def test_what_is_no_json_is_malformed(sent: bytes) -> None:
    assert refused(lambda: parse_body(TRANSFER, sent)).code == "malformed_json"


@pytest.mark.parametrize("sent", [b"[]", b'"1"', b"1", b"null"])
def test_json_that_is_no_object_is_not_valid(sent: bytes) -> None:
    assert list(pointers(refused(lambda: parse_body(WALLET, sent)))) == [""]


@pytest.mark.parametrize(
    "field",
    [
        '"reference_id":"' + "x" * 256 + '"',
        '"reference_id":"a\\u0000b"',
        '"reference_id":"a\\nb"',
        '"reference_id":1',
        '"currency":"usd"',
        '"currency":"US"',
        '"scale":19',
        '"scale":-1',
        '"scale":"2"',
        '"scale":2.0',
        '"metadata":null',
        '"metadata":[]',
        '"metadata":{"":"v"}',
        '"metadata":{"k":"' + "v" * 513 + '"}',
        '"metadata":{"' + "k" * 65 + '":"v"}',
        '"metadata":{"k":"a\\u0000b"}',
        '"metadata":{' + ",".join(f'"{number}":"v"' for number in range(21)) + "}",
    ],
)
def test_fields_out_of_bounds_are_refused(field: str) -> None:
    problem = refused(lambda: parse_body(WALLET, f"{{{field}}}".encode()))
    (pointer,) = pointers(problem)
    assert pointer.startswith("/" + field.split('"')[1])


@pytest.mark.parametrize(
    "field",
    [
        '"reference_id":"' + "x" * 255 + '"',
        '"reference_id":"Žofie ✓"',
        '"currency":"A23456789012","scale":18',
        '"metadata":{"k":""}',
        '"metadata":{"k":"two\\nlines"}',
        '"metadata":{' + ",".join(f'"{number}":"v"' for number in range(20)) + "}",
    ],
)
def test_fields_at_their_bounds_are_taken(field: str) -> None:
    parse_body(WALLET, f"{{{field}}}".encode())


# -- reading bodies --------------------------------------------------------------------------------


async def body_of(request: Request, bytes_max: int = 10) -> bytes | ProblemError:
    try:
        return await read_body(request, bytes_max)
    except ProblemError as problem:
        return problem


async def test_a_body_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_TIMEOUT_S", 0.01)
    pieces: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        if not pieces:
            await asyncio.Event().wait()
        return pieces.pop()

    problem = await body_of(Request({"type": "http", "headers": []}, receive))

    assert isinstance(problem, ProblemError)
    assert problem.code == "malformed_json"


async def test_a_body_in_pieces_is_read_whole() -> None:
    assert await body_of(make_request(chunks=[b"{}", b"", b" \n"])) == b"{} \n"
    assert await body_of(make_request()) == b""
    assert await body_of(make_request(chunks=[b"0123456789"])) == b"0123456789"


@pytest.mark.parametrize(
    "request_",
    [
        make_request(headers={"content-length": "11"}),
        make_request(chunks=[b"012345", b"67890"]),
        make_request(headers={"content-length": "2"}, chunks=[b"01234567890"]),
    ],
    ids=["announced", "in pieces", "more than announced"],
)
async def test_a_body_that_is_too_large_is_refused(request_: Request) -> None:
    problem = await body_of(request_)
    assert isinstance(problem, ProblemError)
    assert problem.code == "body_too_large"
    assert "10 bytes" in problem.detail


async def test_a_body_that_ends_too_soon_is_no_empty_body() -> None:
    problem = await body_of(make_request(chunks=[b"{}"], disconnects=True))
    assert isinstance(problem, ProblemError)
    assert problem.code == "malformed_json"


@pytest.mark.parametrize(
    ("declared", "taken"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("application/jsonp", False),
    ],
)
async def test_a_body_must_be_declared_as_json(declared: str, taken: bool) -> None:
    read = await body_of(make_request(headers={"content-type": declared}, chunks=[b"{}"]))
    assert (read == b"{}") is taken
    if not taken:
        assert isinstance(read, ProblemError)
        assert read.code == "unsupported_media_type"


async def test_no_body_needs_no_media_type() -> None:
    assert await body_of(make_request(headers={"content-type": "text/plain"})) == b""


# -- headers and paths ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k", "a-b_c:1", "x" * 255])
def test_a_visible_key_is_taken(key: str) -> None:
    assert idempotency_key_of(make_request(headers={"Idempotency-Key": key})) == key


@pytest.mark.parametrize("key", ["", " ", "two words", "x" * 256, "ü", "tab\there"])
def test_any_other_key_is_refused(key: str) -> None:
    request = make_request(headers={"Idempotency-Key": key})
    found = pointers(refused(lambda: idempotency_key_of(request)))
    assert list(found) == ["#header/Idempotency-Key"]


def test_a_request_without_a_key_has_none() -> None:
    assert idempotency_key_of(make_request()) is None


def test_a_usable_request_id_is_kept_and_another_replaced_once_and_for_all() -> None:
    assert request_id_of(make_request(headers={"X-Request-Id": "mine-1"})) == "mine-1"
    for sent in ("", "two words", "x" * 129, "ü"):
        request = make_request(headers={"X-Request-Id": sent})
        minted = request_id_of(request)
        assert minted != sent
        assert request_id_of(request) == minted


def test_a_request_s_own_timeout_counts_within_bounds() -> None:
    assert timeout_of(make_request(), SETTINGS) == 10.0
    for sent, seconds in (("1", 0.001), ("250", 0.25), ("60000", 60.0)):
        assert timeout_of(make_request(headers={"X-Request-Timeout-Ms": sent}), SETTINGS) == seconds
    for sent in ("0", "60001", "-1", "1.5", "", "soon", "²", "9" * 5_000):
        request = make_request(headers={"X-Request-Timeout-Ms": sent})
        with pytest.raises(ProblemError) as problem:
            timeout_of(request, SETTINGS)
        assert list(pointers(problem.value)) == ["#header/X-Request-Timeout-Ms"]


@pytest.mark.parametrize("sent", [WALLET_ID, WALLET_ID.upper()])
def test_ids_in_the_path_are_canonical_uuids(sent: str) -> None:
    request = make_request(path={"wallet_id": sent, "transfer_id": sent})
    assert {str(wallet_id_of(request)), str(transfer_id_of(request))} == {WALLET_ID}


@pytest.mark.parametrize(
    "sent", ["", "1", WALLET_ID + "0", WALLET_ID.replace("-", ""), "{" + WALLET_ID + "}"]
)
def test_what_is_no_uuid_names_nothing(sent: str) -> None:
    request = make_request(path={"wallet_id": sent, "transfer_id": sent})
    assert refused(lambda: wallet_id_of(request)).code == "wallet_not_found"
    assert refused(lambda: transfer_id_of(request)).code == "transfer_not_found"


@pytest.mark.parametrize(
    ("model", "sent", "pointer", "detail"),
    [
        (WALLET, b'{"currency":"usd"}', "/currency", 'currencies are upper case: "USD", not "usd"'),
        (
            WALLET,
            b'{"currency":"U$"}',
            "/currency",
            'send 3 to 12 capital letters and digits, a letter first, not "U$"',
        ),
        (
            TRANSFER,
            b'{"amount":"1","status":"done"}',
            "/status",
            "Input should be 'pending' or 'completed', not \"done\"",
        ),
        (WALLET, b'{"scale":19}', "/scale", "Input should be less than or equal to 18, not 19"),
        (
            WALLET,
            b'{"reference_id":"a\\nb"}',
            "/reference_id",
            'send visible characters, without control characters or line breaks, not "a\\nb"',
        ),
        (
            TRANSFER,
            b'{"amount":"1","stauts":"done"}',
            "/stauts",
            "unknown field: did you mean status?",
        ),
    ],
)
def test_an_error_says_in_words_what_was_sent(
    model: type[BaseModel], sent: bytes, pointer: str, detail: str
) -> None:
    assert pointers(refused(lambda: parse_body(model, sent))) == {pointer: detail}


def test_a_long_value_is_shortened_in_the_error() -> None:
    sent = msgspec.json.encode({"amount": "1", "status": "x" * 10_000})
    (detail,) = pointers(refused(lambda: parse_body(TRANSFER, sent))).values()
    assert len(detail) < 100
    assert detail.endswith("…")
