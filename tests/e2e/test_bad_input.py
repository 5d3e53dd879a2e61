"""Any input: never a 5xx or a stack trace, and only valid requests change anything.

Generates bodies that no schema describes, in addition to schemathesis.
"""

import json
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.api import Api, new_id
from tests.e2e.problems import assert_problem

_EXAMPLES: Final = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_JSON: Final = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def wallet(api: Api) -> str:
    return api.new_wallet("10")


def _paths(wallet: str) -> list[str]:
    base = f"/v1/wallet/{wallet}/transfers"
    return [
        f"{base}/debit",
        f"{base}/credit",
        f"{base}/batch",
        "/v1/transfers/batch",
        "/v1/wallet",
        f"{base}/{new_id()}/complete",
    ]


def assert_refused(answer: httpx.Response) -> None:
    """A client error with a problem document."""
    assert 400 <= answer.status_code < 500, answer.text
    assert_problem(answer, answer.status_code, answer.json()["code"])


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("1")
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    ["amount", "status", "reference_id", "metadata", "items", "type", "wallet_id", "scale", "x"]
)


@_EXAMPLES
@given(body=st.dictionaries(_NAMES, _VALUES, max_size=4), route=st.integers(0, 3))
def test_no_json_breaks_the_service(
    api: Api, wallet: str, body: dict[str, Any], route: int
) -> None:
    text = json.dumps(body)

    answer = api.http.post(_paths(wallet)[route], content=text, headers=_JSON)

    assert answer.status_code < 500, (body, answer.text)
    if answer.status_code >= 400:
        assert_refused(answer)


@_EXAMPLES
@given(
    amount=st.one_of(
        st.from_regex(r"-?[0-9]{0,45}\.?[0-9]{0,25}(e[0-9]{1,3})?", fullmatch=True),
        st.text(max_size=50),
        st.integers().map(str),
        st.floats().map(repr),
    ),
    kind=st.sampled_from(["debit", "credit"]),
)
def test_an_amount_is_taken_exactly_or_refused(
    api: Api, wallet: str, amount: str, kind: str
) -> None:
    before = api.state(wallet)

    answer = api.post(f"/v1/wallet/{wallet}/transfers/{kind}", {"amount": amount})

    if answer.status_code == 201:
        transfer = answer.json()
        whole, _, fraction = amount.partition(".")
        assert transfer["amount"] == f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"
        undone = api.settle(wallet, transfer["id"], "revert")
        assert undone.json()["wallet"]["balance"] == before["balance"]
    else:
        assert answer.status_code in (409, 422)
        assert api.state(wallet) == before


@_EXAMPLES
@given(body=st.binary(max_size=200), route=st.integers(0, 5))
def test_no_bytes_break_the_service(api: Api, wallet: str, body: bytes, route: int) -> None:
    answer = api.http.post(_paths(wallet)[route], content=body or b"\0", headers=_JSON)

    assert_refused(answer)


@_EXAMPLES
@given(
    value=st.lists(st.sampled_from([*range(0x21, 0x7F), *range(0x80, 0x100)]), max_size=300).map(
        bytes
    ),
    name=st.sampled_from(
        ["Idempotency-Key", "X-Request-Id", "X-Request-Timeout-Ms", "If-None-Match", "Accept"]
    ),
)
def test_no_header_breaks_the_service(api: Api, wallet: str, value: bytes, name: str) -> None:
    before = api.state(wallet)
    header = [(name.encode(), value), (b"Content-Type", b"application/json")]

    written = api.http.post(f"/v1/wallet/{wallet}/transfers/debit", json={}, headers=header)
    read = api.get(f"/v1/wallet/{wallet}", headers=header[:1])

    assert written.status_code in (400, 422), written.text
    assert read.status_code in (200, 304, 400), read.text
    assert api.state(wallet) == before


@_EXAMPLES
@given(text=st.text(st.characters(min_codepoint=1), min_size=1, max_size=80))
def test_no_id_and_no_query_breaks_the_service(api: Api, text: str) -> None:
    quoted = str(httpx.QueryParams({"q": text}))[2:].replace("+", "%20")

    for path in (
        f"/v1/wallet/{quoted}",
        f"/v1/wallet/{quoted}/transfers/{quoted}",
        f"/problems/-{quoted}",  # The bare text may be one: hypothesis tries words of the code.
    ):
        assert_refused(api.get(path))
    for path in ("/v1/wallet", f"/v1/wallet/{new_id()}", f"/v1/wallet/{new_id()}/transfers"):
        answer = api.get(f"{path}?{quoted}={quoted}&min_version={quoted}&cursor={quoted}")
        assert_refused(answer)


@pytest.mark.parametrize("route", range(6))
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"metadata":' * 5_000,
        b'{"metadata":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"items":[' + b"[" * 30_000 + b"]" * 30_000 + b"]}",
        b'{"amount":"' + b"9" * 60_000 + b'"}',
        b'{"amount":' + b"9" * 60_000 + b"}",
        b'{"amount":1e999999999}',
        b'{"amount":"\\ud800"}',
        b'{"metadata":{"\\ud800":"x"}, "amount": "1"}',
        b'{"amount":"\xc3\x28"}',
        b'\xef\xbb\xbf{"amount":"1"',
        b'{"x":"1","x":"2"}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_huge_and_deep_and_broken_json_is_refused(
    api: Api, wallet: str, route: int, body: bytes
) -> None:
    before = api.state(wallet)

    assert_refused(api.http.post(_paths(wallet)[route], content=body, headers=_JSON))

    assert api.state(wallet) == before


def test_a_field_that_is_sent_twice_is_never_taken_for_two(api: Api, wallet: str) -> None:
    before = api.state(wallet)["pending_debit"]

    answer = api.http.post(
        f"/v1/wallet/{wallet}/transfers/debit",
        content=b'{"amount":"1","amount":"2"}',
        headers=_JSON,
    )

    if answer.status_code == 201:
        assert answer.json()["amount"] in ("1.00", "2.00")
        assert api.settle(wallet, answer.json()["id"], "revert").status_code == 200
    else:
        assert_refused(answer)
    assert api.state(wallet)["pending_debit"] == before
