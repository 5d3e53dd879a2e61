"""Invalid amounts on every route: refused, with a detail that says what to send."""

from typing import Any

import pytest

from tests.e2e.api import Api
from tests.e2e.problems import assert_problem

# As they stand in the JSON text: what a JSON library would make of them is not what was sent.
_NEVER_AMOUNTS = [
    "10.5",  # a float
    "10.0",
    "1e3",
    "1E+2",
    "NaN",
    "Infinity",
    "true",
    "null",
    "0",
    "-1",
    "[]",
    "{}",
    '"1e3"',
    '"NaN"',
    '"Infinity"',
    '"-1"',
    '"+1"',
    '"0"',
    '"0.00"',
    '""',
    '" 1"',
    '"1 "',
    '"1."',
    '".5"',
    '"01"',
    '"1,000"',
    '"1_000"',
    '"0x10"',
    '"10.50\\n"',
    '"٣"',  # a digit, but not ASCII
    '"1.0000000000000000001"',  # 19 decimals
    "1" + "0" * 38,
    '"1' + "0" * 38 + '"',
    '"' + "9" * 5000 + '"',
    "9" * 5000,
]
_NO_JSON = {"NaN", "Infinity"}


@pytest.fixture(scope="module")
def wallet(api: Api) -> str:
    return api.new_wallet("10")


def _send(api: Api, path: str, body: str) -> Any:
    return api.http.post(path, content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("amount", _NEVER_AMOUNTS, ids=lambda amount: amount[:20])
@pytest.mark.parametrize("kind", ["debit", "credit"])
def test_an_amount_that_is_no_exact_decimal_is_refused_and_changes_nothing(
    api: Api, wallet: str, kind: str, amount: str
) -> None:
    before = api.state(wallet)

    answer = _send(api, f"/v1/wallet/{wallet}/transfers/{kind}", f'{{"amount": {amount}}}')

    assert_problem(answer, 422, "validation_error")
    assert api.state(wallet) == before


@pytest.mark.parametrize("amount", _NEVER_AMOUNTS, ids=lambda amount: amount[:20])
def test_a_batch_refuses_the_same_amounts(api: Api, wallet: str, amount: str) -> None:
    before = api.state(wallet)
    item = f'{{"type": "debit", "amount": {amount}}}'

    answer = _send(api, f"/v1/wallet/{wallet}/transfers/batch", f'{{"items": [{item}]}}')

    if amount in _NO_JSON:
        assert_problem(answer, 400, "malformed_json")
    else:
        assert_problem(answer, 422, "validation_error")
    assert api.state(wallet) == before


@pytest.mark.parametrize(
    ("currency", "amount", "hint"),
    [
        ({"currency": "USD"}, "1.001", "at most 2 decimals"),
        ({"currency": "JPY"}, "1.5", "whole number"),
        ({"currency": "ETH", "scale": 18}, "1" + "0" * 21, "send at most"),
        ({"currency": "USD"}, "1" + "0" * 36, "send at most"),
    ],
)
def test_an_amount_must_fit_the_wallets_currency(
    api: Api, currency: dict[str, Any], amount: str, hint: str
) -> None:
    wallet = api.new_wallet(**currency)

    for answer in (
        api.debit(wallet, {"amount": amount}),
        api.batch(wallet, {"items": [{"type": "debit", "amount": amount}], "atomic": True}),
    ):
        problem = assert_problem(answer, 422, "validation_error")
        assert problem["errors"][0]["pointer"].endswith("/amount")
        assert hint in problem["errors"][0]["detail"]
    assert api.state(wallet)["version"] == 1


@pytest.mark.parametrize(
    ("sent", "shown"),
    [(3, "3.00"), ("3", "3.00"), ("3.5", "3.50"), ("3.500000", "3.50"), ("0.01", "0.01")],
)
def test_an_amount_is_shown_with_its_currencys_decimals(
    api: Api, wallet: str, sent: str | int, shown: str
) -> None:
    assert api.debit(wallet, {"amount": sent}).json()["amount"] == shown


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/amount"),
        ({"amount": "1", "status": "failed"}, "/status"),
        ({"amount": "1", "status": None}, "/status"),
        ({"amount": "1", "currency": "USD"}, "/currency"),
        ({"amount": "1", "reference_id": ""}, "/reference_id"),
        ({"amount": "1", "metadata": {"": "no name"}}, "/metadata/"),
        ({"amount": "1", "metadata": {"k": None}}, "/metadata/k"),
        ([], ""),
        ("10.50", ""),
        (None, "/amount"),
    ],
    ids=str,
)
def test_a_transfer_is_not_made_by_an_invalid_body(
    api: Api, wallet: str, body: object, pointer: str
) -> None:
    before = api.state(wallet)

    assert_problem(api.debit(wallet, body), 422, "validation_error", pointer=pointer)

    assert api.state(wallet) == before
