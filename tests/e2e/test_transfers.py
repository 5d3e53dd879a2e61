"""Money over HTTP: a debit puts it INTO the wallet, a credit takes it OUT."""

from typing import Any

import pytest

from tests.e2e.api import Api, new_id
from tests.e2e.problems import assert_problem

_FIELDS = {
    "id",
    "wallet_id",
    "type",
    "status",
    "amount",
    "currency",
    "reference_id",
    "metadata",
    "failure_reason",
    "created_at",
    "settled_at",
    "effect",
}


def _balances(
    balance: str, pending_credit: str, pending_debit: str, version: int
) -> dict[str, object]:
    return {
        "version": version,
        "balance": balance,
        "pending_credit": pending_credit,
        "pending_debit": pending_debit,
    }


def test_a_completed_debit_puts_money_into_the_wallet_at_once(api: Api) -> None:
    wallet = api.new_wallet()

    made = api.debit(wallet, {"amount": "10.50", "status": "completed"})

    assert made.status_code == 201
    transfer = made.json()
    assert set(transfer) == {*_FIELDS, "wallet"}
    assert made.headers["location"] == f"/v1/wallet/{wallet}/transfers/{transfer['id']}"
    assert (transfer["type"], transfer["status"], transfer["amount"], transfer["currency"]) == (
        "debit",
        "completed",
        "10.50",
        "USD",
    )
    assert transfer["settled_at"] == transfer["created_at"]
    assert transfer["wallet"] == _balances("10.50", "0.00", "0.00", 2)


def test_a_pending_debit_is_announced_and_arrives_when_it_completes(api: Api) -> None:
    wallet = api.new_wallet("1")

    made = api.debit(wallet, {"amount": "10.50"}).json()
    settled = api.settle(wallet, made["id"], "complete")

    assert (made["status"], made["settled_at"]) == ("pending", None)
    assert made["wallet"] == _balances("1.00", "0.00", "10.50", 3)
    assert settled.status_code == 200
    assert settled.json()["status"] == "completed"
    assert settled.json()["settled_at"] is not None
    assert settled.json()["wallet"] == _balances("11.50", "0.00", "0.00", 4)


def test_a_pending_debit_that_is_reverted_never_arrives(api: Api) -> None:
    wallet = api.new_wallet("1")
    made = api.debit(wallet, {"amount": "10.50"}).json()

    reverted = api.settle(wallet, made["id"], "revert").json()

    assert (reverted["status"], reverted["failure_reason"]) == ("failed", "reverted")
    assert reverted["wallet"] == _balances("1.00", "0.00", "0.00", 4)


def test_a_pending_credit_holds_its_money_at_once_and_completes(api: Api) -> None:
    wallet = api.new_wallet("10")

    made = api.credit(wallet, {"amount": "4"}).json()
    settled = api.settle(wallet, made["id"], "complete", {}).json()

    assert made["wallet"] == _balances("6.00", "4.00", "0.00", 3)
    assert settled["wallet"] == _balances("6.00", "0.00", "0.00", 4)


def test_a_pending_credit_that_is_reverted_gives_its_money_back(api: Api) -> None:
    wallet = api.new_wallet("10")
    made = api.credit(wallet, {"amount": "4"}).json()

    reverted = api.settle(wallet, made["id"], "revert", {}).json()

    assert reverted["wallet"] == _balances("10.00", "0.00", "0.00", 4)


def test_the_whole_balance_may_be_taken_out_and_not_a_cent_more(api: Api) -> None:
    wallet = api.new_wallet("10")

    assert_problem(api.credit(wallet, {"amount": "10.01"}), 409, "insufficient_funds")
    taken = api.credit(wallet, {"amount": "10.00", "status": "completed"})

    assert taken.json()["wallet"] == _balances("0.00", "0.00", "0.00", 3)
    assert_problem(api.credit(wallet, {"amount": "0.01"}), 409, "insufficient_funds")


def test_what_is_held_or_only_announced_can_not_be_spent(api: Api) -> None:
    wallet = api.new_wallet("10")
    api.credit(wallet, {"amount": "8"})
    api.debit(wallet, {"amount": "100"})
    before = api.state(wallet)

    answer = api.credit(wallet, {"amount": "2.01", "status": "completed"})

    problem = assert_problem(answer, 409, "insufficient_funds")
    assert "2.00" in problem["detail"]
    assert api.state(wallet) == before


@pytest.mark.parametrize(("how", "status"), [("complete", "completed"), ("revert", "failed")])
@pytest.mark.parametrize("kind", ["debit", "credit"])
def test_a_repeated_settlement_answers_the_same_and_changes_nothing(
    api: Api, kind: str, how: str, status: str
) -> None:
    wallet = api.new_wallet("10")
    made = api.post(f"/v1/wallet/{wallet}/transfers/{kind}", {"amount": "1"}).json()

    first = api.settle(wallet, made["id"], how)
    again = api.settle(wallet, made["id"], how)

    assert first.json()["status"] == status
    assert (again.status_code, again.json()) == (200, first.json())
    assert api.state(wallet)["version"] == 4


@pytest.mark.parametrize(
    ("first", "then", "code"),
    [
        ("complete", "revert", "transfer_already_completed"),
        ("revert", "complete", "transfer_already_failed"),
    ],
)
def test_a_settled_transfer_can_not_be_settled_the_other_way(
    api: Api, first: str, then: str, code: str
) -> None:
    wallet = api.new_wallet("10")
    made = api.credit(wallet, {"amount": "1"}).json()
    api.settle(wallet, made["id"], first)
    before = api.state(wallet)

    assert_problem(api.settle(wallet, made["id"], then), 409, code)

    assert api.state(wallet) == before


def test_a_transfer_that_was_completed_at_once_can_not_be_reverted(api: Api) -> None:
    wallet = api.new_wallet()
    made = api.debit(wallet, {"amount": "1", "status": "completed"}).json()

    answer = api.settle(wallet, made["id"], "revert")

    assert_problem(answer, 409, "transfer_already_completed")


@pytest.mark.parametrize("transfer", [new_id(), "none"])
@pytest.mark.parametrize("how", ["complete", "revert"])
def test_a_transfer_that_does_not_exist_is_not_found(api: Api, how: str, transfer: str) -> None:
    wallet = api.new_wallet()

    assert_problem(api.settle(wallet, transfer, how), 404, "transfer_not_found")
    assert_problem(api.transfer(wallet, transfer), 404, "transfer_not_found")


def test_a_transfer_belongs_to_its_own_wallet(api: Api) -> None:
    wallet, other = api.new_wallet("10"), api.new_wallet("10")
    made = api.credit(wallet, {"amount": "1"}).json()

    assert_problem(api.settle(other, made["id"], "complete"), 404, "transfer_not_found")
    assert_problem(api.transfer(other, made["id"]), 404, "transfer_not_found")


def test_money_moves_only_in_wallets_that_exist(api: Api) -> None:
    nobody = new_id()

    assert_problem(api.debit(nobody, {"amount": "1"}), 404, "wallet_not_found")
    assert_problem(api.credit(nobody, {"amount": "1"}), 404, "wallet_not_found")
    assert_problem(api.settle(nobody, new_id(), "complete"), 404, "wallet_not_found")


def test_a_settlement_adds_to_a_transfers_reference_and_metadata(
    api: Api,
) -> None:
    wallet = api.new_wallet()
    body = {"amount": "1", "reference_id": "order-1", "metadata": {"a": "1", "b": "2"}}
    made = api.debit(wallet, body).json()

    more = {"reference_id": "order-1/done", "metadata": {"b": "3", "c": "4"}}
    settled = api.settle(wallet, made["id"], "complete", more).json()

    assert (made["reference_id"], made["metadata"]) == ("order-1", {"a": "1", "b": "2"})
    assert settled["reference_id"] == "order-1/done"
    assert settled["metadata"] == {"a": "1", "b": "3", "c": "4"}


@pytest.mark.parametrize(
    ("currency", "amounts", "balance"),
    [
        ({"currency": "JPY"}, ["1", 2, "1000000000000"], "1000000000003"),
        ({"currency": "USD"}, ["0.1", "0.2", "0.01", 3], "3.31"),
        ({"currency": "ETH", "scale": 18}, ["0.000000000000000001", "1.1"], "1.1" + "0" * 16 + "1"),
        ({"currency": "USD"}, ["123456789012345678901234567890123456.78"] * 2, None),
    ],
    ids=["JPY", "USD", "ETH", "36 digits"],
)
def test_amounts_add_up_exactly_in_every_scale(
    api: Api, currency: dict[str, Any], amounts: list[str | int], balance: str | None
) -> None:
    wallet = api.new_wallet(**currency)

    for amount in amounts:
        last = api.debit(wallet, {"amount": amount, "status": "completed"})
        assert last.status_code == 201, last.text

    expected = balance or "246913578024691357802469135780246913.56"
    assert last.json()["wallet"]["balance"] == expected
    emptied = api.credit(wallet, {"amount": expected, "status": "completed"}).json()
    assert set(emptied["wallet"]["balance"]) <= {"0", "."}


def test_a_wallet_refuses_what_it_could_not_hold(api: Api) -> None:
    wallet = api.new_wallet(currency="JPY")
    most = "9" * 38
    assert api.debit(wallet, {"amount": most}).status_code == 201

    answer = api.debit(wallet, {"amount": "1", "status": "completed"})

    assert_problem(answer, 409, "balance_out_of_range")
