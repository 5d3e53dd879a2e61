"""Batches over HTTP: of one wallet, of many, and streamed line by line."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.api import Api, new_id
from tests.e2e.problems import assert_problem
from tests.e2e.test_idempotency_keys import assert_replay

_MANY = "/v1/transfers/batch"


def _debit(amount: str = "1", **fields: Any) -> dict[str, Any]:
    return {"type": "debit", "amount": amount, "status": "completed", **fields}


def _credit(amount: str = "1", **fields: Any) -> dict[str, Any]:
    return {"type": "credit", "amount": amount, "status": "completed", **fields}


def _statuses(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [item["status"] for item in answer.json()["items"]]


def test_items_are_decided_in_order_and_each_for_itself(api: Api) -> None:
    wallet = api.new_wallet()
    held = api.debit(wallet, {"amount": "5"}).json()["id"]

    answer = api.batch(
        wallet,
        {"items": [_debit("10"), _credit("11"), {"complete": held}, _credit("11"), _debit("0.5")]},
    )

    assert _statuses(answer) == [201, 409, 200, 201, 201]
    items = answer.json()["items"]
    assert items[1]["problem"]["code"] == "insufficient_funds"
    assert "transfer" not in items[1]
    assert items[2]["transfer"]["id"] == held
    assert [item["transfer"]["wallet"]["version"] for item in items if "transfer" in item] == [
        3,
        4,
        5,
        6,
    ]
    last = items[4]["transfer"]["wallet"]
    assert answer.json()["wallet"] == last
    assert (last["balance"], last["version"]) == ("4.50", 6)
    state = api.state(wallet)
    assert {name: state[name] for name in last} == last


def test_an_atomic_batch_is_applied_as_a_whole(api: Api) -> None:
    wallet = api.new_wallet()

    answer = api.batch(wallet, {"items": [_debit("10"), _credit("4")] * 3, "atomic": True})

    assert _statuses(answer) == [201] * 6
    assert answer.json()["wallet"]["balance"] == "18.00"


def test_the_first_refusal_undoes_an_atomic_batch(api: Api) -> None:
    wallet = api.new_wallet("1")
    before = api.state(wallet)

    answer = api.batch(
        wallet, {"items": [_debit("10"), _credit("11.01"), _debit("5")], "atomic": True}
    )

    problem = assert_problem(answer, 409, "batch_refused", pointer="/items/1")
    assert "insufficient_funds" in problem["errors"][0]["detail"]
    assert api.state(wallet) == before


def test_a_transfer_of_a_batch_is_read_like_any_other(api: Api) -> None:
    wallet = api.new_wallet()

    item = _debit("2", reference_id="r", metadata={"a": "b"})
    made = api.batch(wallet, {"items": [item]}).json()["items"][0]["transfer"]

    made.pop("wallet")
    assert api.transfer(wallet, made["id"]).json() == made


@pytest.mark.parametrize("atomic", [False, True])
def test_a_batchs_key_covers_it_as_a_whole(api: Api, atomic: bool) -> None:
    wallet, key = api.new_wallet("1"), new_id()
    body = {"items": [_debit("10"), _credit("3")], "atomic": atomic}

    first = api.batch(wallet, body, key=key)
    again = api.batch(wallet, body, key=key)

    assert _statuses(first) == [201, 201]
    assert_replay(first, again)
    other = api.batch(wallet, {**body, "items": [_debit("10")]}, key=key)
    assert_problem(other, 422, "idempotency_key_reused")
    assert api.state(wallet)["balance"] == "8.00"


def test_a_refused_atomic_batch_stays_refused_under_its_key(api: Api) -> None:
    wallet, key = api.new_wallet("1"), new_id()
    body = {"items": [_credit("5")], "atomic": True}
    refused = api.batch(wallet, body, key=key)
    api.debit(wallet, {"amount": "100", "status": "completed"})

    again = api.batch(wallet, body, key=key)

    assert_problem(refused, 409, "batch_refused")
    assert again.status_code == 409
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == refused.content
    assert api.state(wallet)["balance"] == "101.00"


def test_an_items_own_key_is_honoured(api: Api) -> None:
    wallet, keys = api.new_wallet("1"), [new_id(), new_id()]
    items = [_debit("10", idempotency_key=keys[0]), _credit("500", idempotency_key=keys[1])]

    first = api.batch(wallet, {"items": items})
    again = api.batch(wallet, {"items": [*items, _credit("3")]})

    assert _statuses(first) == [201, 409]
    assert _statuses(again) == [201, 409, 201]
    replayed = again.json()["items"]
    assert [item.get("replayed", False) for item in replayed] == [True, True, False]
    assert replayed[0]["transfer"] == first.json()["items"][0]["transfer"]
    assert again.json()["wallet"]["balance"] == "8.00"


def test_a_batchs_key_can_not_be_an_items_as_well(api: Api) -> None:
    wallet, key = api.new_wallet(), new_id()
    body = {"items": [_debit(), _debit(idempotency_key=key)]}

    answer = api.batch(wallet, body, key=key)

    assert_problem(answer, 422, "validation_error", pointer="/items/1/idempotency_key")


@pytest.mark.parametrize(
    ("items", "pointer"),
    [
        ([], "/items"),
        ([{}], "/items/0"),
        ([{"type": "debit"}], "/items/0"),
        ([{"amount": "1"}], "/items/0"),
        ([{"type": "debit", "amount": "0"}], "/items/0/amount"),
        ([{"type": "debit", "amount": "1", "complete": "x"}], "/items/0"),
        ([{"complete": "x"}], "/items/0/complete"),
        ([{"complete": "", "revert": ""}], "/items/0"),
        ([{"revert": "7"}], "/items/0/revert"),
        ([{"type": "deposit", "amount": "1"}], "/items/0/type"),
        ([{"type": "debit", "amount": "1"}, {"type": "debit", "amount": 1.5}], "/items/1/amount"),
        ([{"type": "debit", "amount": "1", "idempotency_key": ""}], "/items/0/idempotency_key"),
        ([{"type": "debit", "amount": "1", "metadata": {"a": 1}}], "/items/0/metadata"),
        ([{"type": "debit", "amount": "1"}] * 1001, "/items"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_invalid_batch_changes_nothing_and_names_the_item(
    api: Api, items: list[Any], pointer: str
) -> None:
    wallet = api.new_wallet()

    problem = assert_problem(api.batch(wallet, {"items": items}), 422, "validation_error")

    assert problem["errors"][0]["pointer"].startswith(pointer)
    assert api.state(wallet)["version"] == 1


def test_a_wallets_whole_thousand_fits_in_one_batch(api: Api) -> None:
    wallet = api.new_wallet()

    answer = api.batch(wallet, {"items": [_debit("0.01")] * 1000})

    assert _statuses(answer) == [201] * 1000
    assert answer.json()["wallet"] == {
        "version": 1001,
        "balance": "10.00",
        "pending_credit": "0.00",
        "pending_debit": "0.00",
    }


def test_one_batch_may_move_money_in_many_wallets(api: Api) -> None:
    wallets = [api.new_wallet("1") for _ in range(5)]
    items = [
        {"wallet_id": wallet, **item}
        for item in (_debit("10"), _credit("11"), _credit("0.01"))
        for wallet in wallets
    ]

    answer = api.post(_MANY, {"items": [*items, {"wallet_id": new_id(), **_debit()}]})

    assert _statuses(answer) == [201] * 10 + [409] * 5 + [404]
    assert [item["transfer"]["wallet_id"] for item in answer.json()["items"][:10]] == wallets * 2
    for wallet in wallets:
        assert api.state(wallet)["balance"] == "0.00"


def _debits(*wallets: str) -> dict[str, Any]:
    return {"items": [{"wallet_id": wallet, **_debit("1")} for wallet in wallets]}


def test_a_batch_across_wallets_is_repeated_safely_under_its_key(api: Api) -> None:
    wallets, key = [api.new_wallet() for _ in range(3)], new_id()
    body = _debits(*wallets, new_id(), "no id")

    first, again = (api.post(_MANY, body, key=key) for _ in range(2))

    assert _statuses(first) == [201] * 3 + [404] * 2
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content
    for wallet in wallets:
        assert api.state(wallet)["balance"] == "1.00"


@pytest.mark.parametrize(("first", "other"), [("A", "AB"), ("AB", "A"), ("AB", "BA"), ("A", "B")])
def test_a_key_of_a_batch_across_wallets_belongs_to_the_whole_of_it(
    api: Api, first: str, other: str
) -> None:
    wallets, key = {name: api.new_wallet() for name in "AB"}, new_id()
    api.post(_MANY, _debits(*(wallets[name] for name in first)), key=key)
    before = [api.state(wallet) for wallet in wallets.values()]

    refused = api.post(_MANY, _debits(*(wallets[name] for name in other)), key=key)

    assert_problem(refused, 422, "idempotency_key_reused")
    assert [api.state(wallet) for wallet in wallets.values()] == before


def test_ten_batches_at_once_under_one_key_make_one(api: Api) -> None:
    wallets, key = [api.new_wallet() for _ in range(10)], new_id()

    def send(wallet: str) -> Any:
        return api.post(_MANY, _debits(wallet), key=key)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(send, wallets))

    assert sorted(answer.status_code for answer in answers) == [200] + [422] * 9
    assert sum(api.state(wallet)["version"] - 1 for wallet in wallets) == 1
