"""Holds that expire and scheduled transfers, in the running service."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tests.e2e.api import Api, eventually

PROMISED_S = 2.0
"""Within this time after its expiry a transfer is settled."""


def hold(api: Api, wallet: str, **fields: Any) -> Any:
    answer = api.credit(wallet, {"amount": "4.00", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def seconds_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("on_expiry", "status", "balance"),
    [("fail", "failed", "10.00"), ("complete", "completed", "6.00")],
)
def test_a_hold_settles_itself_in_time(api: Api, on_expiry: str, status: str, balance: str) -> None:
    wallet = api.new_wallet("10.00")
    made = hold(api, wallet, expires_in_s=1, on_expiry=on_expiry)
    assert made["wallet"]["balance"] == "6.00"
    eventually(partial(_is_settled, api, wallet, made["id"]))
    settled = api.transfer(wallet, made["id"]).json()
    assert settled["status"] == status
    assert settled["failure_reason"] == ("expired" if status == "failed" else None)
    late = seconds_of(settled["settled_at"]) - seconds_of(settled["expires_at"])
    assert 0 <= late < PROMISED_S
    assert api.state(wallet)["balance"] == balance
    assert api.state(wallet)["pending_credit"] == "0.00"


def _is_settled(api: Api, wallet: str, transfer: str) -> bool:
    return bool(api.transfer(wallet, transfer).json()["status"] != "pending")


def test_every_read_shows_when_a_transfer_expires(api: Api) -> None:
    wallet = api.new_wallet("10.00")
    at = datetime.now(UTC) + timedelta(days=1)
    made = hold(api, wallet, expires_at=at.isoformat(), on_expiry="complete")
    plain = hold(api, wallet)
    version = plain["wallet"]["version"]
    assert datetime.fromisoformat(made["expires_at"]) == at
    for query in ({}, {"consistency": "strong"}, {"min_version": version}):
        page = api.transfers(wallet, **query).json()["items"]
        shown = {one["id"]: (one.get("expires_at"), one.get("on_expiry")) for one in page}
        if not query and len(shown) < 3:
            continue  # The projection is behind.
        assert shown[made["id"]] == (made["expires_at"], "complete")
        assert shown[plain["id"]] == (None, None)
    eventually(lambda: api.transfer(wallet, made["id"]).json() == _without_wallet(made))


def _without_wallet(transfer: Any) -> Any:
    return {name: value for name, value in transfer.items() if name != "wallet"}


def test_what_is_settled_in_time_does_not_expire(api: Api) -> None:
    wallet = api.new_wallet("10.00")
    done, back = (hold(api, wallet, expires_in_s=2)["id"] for _ in range(2))
    assert api.settle(wallet, done, "complete").status_code == 200
    assert api.settle(wallet, back, "revert").json()["failure_reason"] == "reverted"
    expired = hold(api, wallet, expires_in_s=1)["id"]
    eventually(partial(_is_settled, api, wallet, expired))
    late = api.settle(wallet, expired, "complete")
    assert (late.status_code, late.json()["code"]) == (409, "transfer_already_failed")
    assert "it expired at" in late.json()["detail"]
    assert api.settle(wallet, expired, "revert").json()["failure_reason"] == "expired"
    assert api.state(wallet)["balance"] == "6.00"


def test_a_part_is_completed_and_every_read_shows_it(api: Api) -> None:
    wallet = api.new_wallet("10.00")
    held = hold(api, wallet)["id"]
    done = api.settle(wallet, held, "complete", {"amount": "1.50"}).json()
    assert (done["completed_amount"], done["wallet"]["balance"]) == ("1.50", "8.50")
    strong = api.transfers(wallet, consistency="strong").json()["items"][0]
    assert strong == _without_wallet(done)
    eventually(lambda: api.transfer(wallet, held).json() == strong)
    assert api.settle(wallet, held, "complete", {"amount": "1.5"}).json() == done
    for other in ({"amount": "2"}, {}):
        assert api.settle(wallet, held, "complete", other).status_code == 409


def test_parts_are_completed_while_the_rest_is_held(api: Api) -> None:
    wallet = api.new_wallet("10.00")
    held = hold(api, wallet, expires_in_s=3)["id"]
    for number, left in (("1", "3.00"), ("2", "2.00")):
        done = api.settle(
            wallet,
            held,
            "complete",
            {"amount": "1.00", "final": False},
            headers={"Idempotency-Key": f"{held}-{number}"},
        ).json()
        assert (done["status"], done["pending_amount"]) == ("pending", left)
    strong = api.transfers(wallet, consistency="strong").json()["items"][0]
    assert strong == _without_wallet(done)
    eventually(partial(_is_settled, api, wallet, held))
    expired = api.transfer(wallet, held).json()
    assert (expired["failure_reason"], expired["completed_amount"]) == ("expired", "2.00")
    assert api.state(wallet)["balance"] == "8.00"


def refund(api: Api, wallet: str, transfer: str, key: str, **body: Any) -> Any:
    path = f"/v1/wallet/{wallet}/transfers/{transfer}/refund"
    return api.post(path, body, headers={"Idempotency-Key": f"{transfer}-{key}"})


def test_a_transfer_is_refunded_in_parts_and_every_read_shows_it(api: Api) -> None:
    wallet = api.new_wallet("10.00")
    paid = api.credit(wallet, {"amount": "4.00", "status": "completed"}).json()["id"]
    first = refund(api, wallet, paid, "1", amount="1.50")
    assert (first.status_code, first.json()["refunds"]) == (201, paid)
    assert refund(api, wallet, paid, "1", amount="1.50").json() == first.json()
    held = refund(api, wallet, paid, "2", status="pending", expires_in_s=1).json()
    assert (held["amount"], held["wallet"]["balance"]) == ("2.50", "7.50")
    more = refund(api, wallet, paid, "3", amount="0.01")
    assert (more.status_code, more.json()["code"]) == (409, "amount_exceeds_refundable")
    # The pending refund expires, and gives back what it held of the transfer.
    eventually(partial(_is_settled, api, wallet, held["id"]))
    last = refund(api, wallet, paid, "4").json()
    assert last["refunded_transfer"]["refunded_amount"] == "4.00"
    assert api.state(wallet)["balance"] == "10.00"
    for query in ({"consistency": "strong"}, {"min_version": last["wallet"]["version"]}):
        shown = api.transfers(wallet, refunds=paid, **query).json()["items"]
        assert [one["id"] for one in shown] == [last["id"], held["id"], first.json()["id"]]
    eventually(lambda: api.transfer(wallet, paid).json().get("refunded_amount") == "4.00")


def test_a_frozen_wallet_expires_what_it_holds(api: Api) -> None:
    wallet = api.new_wallet("10.00")
    made = hold(api, wallet, expires_in_s=1, on_expiry="complete")["id"]
    frozen = api.post(f"/v1/wallet/{wallet}/freeze", {"direction": "credit"})
    assert frozen.status_code == 200
    eventually(partial(_is_settled, api, wallet, made))
    assert api.transfer(wallet, made).json()["failure_reason"] == "expired"
    assert api.state(wallet)["balance"] == "10.00"
