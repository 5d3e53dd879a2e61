"""What a wallet may do is changed, kept by every route, and shown by every read."""

from functools import partial
from typing import Any

from tests.e2e.api import Api, eventually


def change(api: Api, wallet: str, what: str = "", body: Any = None, **options: Any) -> Any:
    """PATCH the wallet, or POST to one of its routes; the answer's body."""
    path = f"/v1/wallet/{wallet}" + (f"/{what}" if what else "")
    method = "POST" if what else "PATCH"
    answer = api.http.request(method, path, json=body or {}, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def without_reason(answer: Any) -> Any:
    return {name: value for name, value in answer.items() if name != "reason"}


def test_a_wallet_is_read_as_it_was_changed(api: Api) -> None:
    wallet = api.new_wallet("1.00", metadata={"a": "1"})
    steps: list[tuple[str, Any]] = [
        ("", {"metadata": {"a": None, "b": "2"}, "overdraft_limit": "7.50"}),
        ("freeze", {"direction": "credit", "reason": "Žofie's card"}),
        ("freeze", {"direction": "both"}),
        ("unfreeze", {"reason": "found"}),
    ]
    for what, body in steps:
        changed = change(api, wallet, what, body)
        assert api.state(wallet) == without_reason(changed)
        read = api.wallet(wallet, min_version=changed["version"])
        assert read.json() == without_reason(changed)
        eventually(partial(_shows, api, wallet, changed))


def _shows(api: Api, wallet: str, changed: Any) -> bool:
    return bool(api.wallet(wallet).json() == without_reason(changed))


def test_a_frozen_wallet_keeps_its_money_where_it_is(api: Api) -> None:
    wallet = api.new_wallet("10.00")
    held = api.credit(wallet, {"amount": "4.00"}).json()["id"]
    change(api, wallet, "freeze", {"direction": "credit"})
    refused = [
        api.credit(wallet, {"amount": "1.00"}),
        api.settle(wallet, held, "complete"),
    ]
    assert [one.json()["code"] for one in refused] == ["wallet_frozen"] * 2
    batch = api.batch(wallet, {"items": [{"complete": held}, {"type": "debit", "amount": "1"}]})
    assert [item["status"] for item in batch.json()["items"]] == [409, 201]
    assert api.settle(wallet, held, "revert").json()["wallet"]["balance"] == "10.00"


def test_a_closed_wallet_can_be_read_and_nothing_else(api: Api) -> None:
    wallet = api.new_wallet("3.00")
    early = api.post(f"/v1/wallet/{wallet}/close")
    assert early.json()["code"] == "wallet_not_empty"
    spent = api.credit(wallet, {"amount": "3.00", "status": "completed"}).json()
    closed = change(api, wallet, "close")
    assert closed["version"] == spent["wallet"]["version"] + 1
    assert api.debit(wallet, {"amount": "1.00"}).json()["code"] == "wallet_closed"
    assert api.transfers(wallet, consistency="strong").json()["items"][0]["id"] == spent["id"]


def test_a_change_is_refused_once_the_wallet_has_moved(api: Api) -> None:
    wallet = api.new_wallet()
    etag = api.wallet(wallet, consistency="strong").headers["ETag"]
    api.debit(wallet, {"amount": "1.00"})
    path = f"/v1/wallet/{wallet}"
    moved = api.http.patch(path, json={"metadata": {"a": "1"}}, headers={"If-Match": etag})
    assert (moved.status_code, moved.json()["code"]) == (412, "precondition_failed")
    etag = api.wallet(wallet, consistency="strong").headers["ETag"]
    answer = api.http.patch(path, json={"metadata": {"a": "1"}}, headers={"If-Match": etag})
    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"3"'


def test_an_overdraft_is_lent_and_paid_back(api: Api) -> None:
    wallet = api.new_wallet(overdraft_limit="5.00")
    out = api.credit(wallet, {"amount": "5.00", "status": "completed"}).json()
    assert (out["effect"], out["wallet"]["balance"]) == ("out", "-5.00")
    assert api.credit(wallet, {"amount": "0.01"}).json()["code"] == "insufficient_funds"
    lower = api.http.patch(f"/v1/wallet/{wallet}", json={"overdraft_limit": "0"})
    assert lower.json()["code"] == "overdraft_in_use"
    back = api.debit(wallet, {"amount": "5.00", "status": "completed"}).json()
    assert (back["effect"], back["wallet"]["balance"]) == ("in", "0.00")
    assert change(api, wallet, "", {"overdraft_limit": None})["overdraft_limit"] == "0.00"
