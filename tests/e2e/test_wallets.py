"""Wallets over HTTP: create, find, read."""

import re

import pytest

from tests.e2e.api import Api, new_id
from tests.e2e.problems import assert_problem

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_FIELDS = {
    "id",
    "reference_id",
    "currency",
    "scale",
    "status",
    "balance",
    "pending_credit",
    "pending_debit",
    "version",
    "metadata",
    "overdraft_limit",
    "frozen",
    "frozen_reason",
    "created_at",
    "updated_at",
}


@pytest.mark.parametrize("body", [None, {}])
def test_a_wallet_is_opened_with_every_default_by_an_empty_body(api: Api, body: object) -> None:
    made = api.create(body)

    assert made.status_code == 201
    wallet = made.json()
    assert set(wallet) == _FIELDS
    assert _UUID.fullmatch(wallet["id"])
    assert made.headers["location"] == f"/v1/wallet/{wallet['id']}"
    assert (wallet["currency"], wallet["scale"], wallet["status"]) == ("USD", 2, "active")
    assert (wallet["balance"], wallet["pending_credit"], wallet["pending_debit"]) == ("0.00",) * 3
    assert (wallet["version"], wallet["reference_id"], wallet["metadata"]) == (1, None, {})
    assert _INSTANT.fullmatch(wallet["created_at"])
    assert wallet["updated_at"] == wallet["created_at"]


def test_a_body_of_json_nulls_takes_the_defaults_too(api: Api) -> None:
    made = api.create({"reference_id": None, "currency": None, "scale": None})

    assert (made.status_code, made.json()["currency"]) == (201, "USD")


def test_a_wallet_keeps_what_it_was_opened_with(api: Api) -> None:
    body = {"reference_id": f"customer-{new_id()}", "currency": "EUR", "metadata": {"näme": "Åsa"}}

    made = api.create(body)

    wallet = made.json()
    assert {name: wallet[name] for name in body} == body
    assert api.get(made.headers["location"], params={"min_version": 1}).json() == wallet


@pytest.mark.parametrize(
    ("asked", "scale", "balance"),
    [
        ({"currency": "JPY"}, 0, "0"),
        ({"currency": "BHD"}, 3, "0.000"),
        ({"currency": "USD", "scale": 2}, 2, "0.00"),
        ({"currency": "ETH", "scale": 18}, 18, "0." + "0" * 18),
        ({"currency": "POINTS", "scale": 0}, 0, "0"),
    ],
    ids=lambda value: str(value.get("currency")) if isinstance(value, dict) else "",
)
def test_a_currency_brings_its_decimals(
    api: Api, asked: dict[str, object], scale: int, balance: str
) -> None:
    wallet = api.create(asked).json()

    assert (wallet["currency"], wallet["scale"], wallet["balance"]) == (
        asked["currency"],
        scale,
        balance,
    )


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"currency": "ETH"}, "/scale"),
        ({"currency": "USD", "scale": 3}, "/scale"),
        ({"currency": "XAU"}, "/scale"),
        ({"currency": "PTS", "scale": 19}, "/scale"),
        ({"currency": "PTS", "scale": -1}, "/scale"),
        ({"currency": "PTS", "scale": 2.0}, "/scale"),
        ({"currency": "PTS", "scale": "2"}, "/scale"),
        ({"currency": "usd"}, "/currency"),
        ({"currency": ""}, "/currency"),
        ({"currency": 840}, "/currency"),
        ({"reference_id": ""}, "/reference_id"),
        ({"reference_id": "x" * 256}, "/reference_id"),
        ({"reference_id": "tab\there"}, "/reference_id"),
        ({"reference_id": 7}, "/reference_id"),
        ({"metadata": {"a": 1}}, "/metadata/a"),
        ({"metadata": ["a"]}, "/metadata"),
        ({"metadata": {"a": "x" * 513}}, "/metadata/a"),
        ({"metadata": {"a": "nul\0"}}, "/metadata/a"),
        ({"metadata": {str(n): "" for n in range(21)}}, "/metadata"),
        ({"owner": "me"}, "/owner"),
    ],
    ids=str,
)
def test_a_wallet_is_not_opened_by_an_invalid_body(
    api: Api, body: dict[str, object], pointer: str
) -> None:
    assert_problem(api.create(body), 422, "validation_error", pointer=pointer)


def test_the_bounds_themselves_are_allowed(api: Api) -> None:
    body = {
        "reference_id": new_id().ljust(255, "x"),
        "metadata": {str(n).rjust(64, "k"): "v" * 512 for n in range(20)},
    }

    made = api.create(body)

    assert made.status_code == 201
    assert made.json()["metadata"] == body["metadata"]


def test_a_reference_id_belongs_to_one_wallet(api: Api) -> None:
    reference = f"taken-{new_id()}"
    wallet = api.new_wallet(reference_id=reference)

    assert_problem(api.create({"reference_id": reference}), 409, "reference_id_taken")

    found = api.get("/v1/wallet", params={"reference_id": reference})
    assert [one["id"] for one in found.json()["items"]] == [wallet]


def test_a_wallet_is_found_by_its_reference_id_at_once(api: Api) -> None:
    reference = f"straße & co? {new_id()}"
    made = api.create({"reference_id": reference}).json()

    found = api.get("/v1/wallet", params={"reference_id": reference})

    assert found.status_code == 200
    assert found.json() == {"items": [made], "next_cursor": None}


def test_an_unknown_reference_id_finds_an_empty_list(api: Api) -> None:
    found = api.get("/v1/wallet", params={"reference_id": new_id()})

    assert (found.status_code, found.json()) == (200, {"items": [], "next_cursor": None})


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("min_version=1", "min_version"), ("reference_id=", "reference_id"), ("limit=1&x=1", "x")],
)
def test_a_list_of_wallets_refuses_what_it_does_not_know(
    api: Api, query: str, pointer: str
) -> None:
    answer = api.get(f"/v1/wallet?{query}")

    assert_problem(answer, 422, "validation_error", pointer=f"#query/{pointer}")


@pytest.mark.parametrize("wallet", [new_id(), "7", "not-a-uuid", "%00", "ü", "0" * 1000])
def test_a_wallet_that_does_not_exist_is_not_found(api: Api, wallet: str) -> None:
    assert_problem(api.wallet(wallet), 404, "wallet_not_found")
    assert_problem(api.wallet(wallet, consistency="strong"), 404, "wallet_not_found")
    assert_problem(api.wallet(wallet, min_version=3), 404, "wallet_not_found")
    assert_problem(api.transfers(wallet), 404, "wallet_not_found")


def test_a_wallet_id_is_the_same_in_capitals(api: Api) -> None:
    wallet = api.new_wallet("5")

    assert api.wallet(wallet.upper(), min_version=2).json() == api.state(wallet)
    assert api.debit(wallet.upper(), {"amount": "1"}).json()["wallet_id"] == wallet
