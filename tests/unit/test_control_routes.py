"""The routes that control a wallet, over HTTP on a shard in memory."""

from typing import Any

import httpx
import pytest

from tests.support.http_side import LATE, HttpSide, http_side
from wallet.commands import CommandRequest
from wallet.ids import WalletId


async def change(side: HttpSide, wallet: WalletId, what: str = "", **sent: Any) -> httpx.Response:
    """PATCH the wallet, or POST to one of its routes; asserts success."""
    path = f"/v1/wallet/{wallet}" + (f"/{what}" if what else "")
    answer = await side.http.request("POST" if what else "PATCH", path, **sent)
    assert answer.status_code == 200, answer.text
    return answer


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_an_update_answers_the_wallet_and_its_etag() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet(metadata={"a": "1", "b": "2"})
        answer = await change(
            side, wallet, json={"metadata": {"a": None, "c": "3"}, "overdraft_limit": 10}
        )
    body = answer.json()
    assert answer.headers["ETag"] == '"2"'
    assert (body["version"], body["metadata"]) == (2, {"b": "2", "c": "3"})
    assert (body["overdraft_limit"], body["status"], body["reason"]) == ("10.00", "active", None)


async def test_null_for_all_metadata_and_the_limit_removes_both() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet(metadata={"a": "1"}, overdraft_limit="3")
        content = b'{"metadata": null, "overdraft_limit": null}'
        headers = {"Content-Type": "application/merge-patch+json"}
        body = (await change(side, wallet, content=content, headers=headers)).json()
    assert (body["metadata"], body["overdraft_limit"]) == ({}, "0.00")


async def test_an_overdraft_is_available_and_the_limit_holds() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet(overdraft_limit="5.00")
        results = [
            await side.http.post(f"/v1/wallet/{wallet}/transfers/credit", json={"amount": amount})
            for amount in ("5", "0.01")
        ]
        lower = await side.http.patch(f"/v1/wallet/{wallet}", json={"overdraft_limit": "4.99"})
    assert results[0].status_code == 201
    assert results[0].json()["wallet"]["balance"] == "-5.00"
    assert problem(results[1]) == (409, "insufficient_funds")
    assert problem(lower) == (409, "overdraft_in_use")


async def test_a_wallet_that_has_moved_answers_412() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        stale = {"If-Match": '"1"'}
        await change(side, wallet, json={"metadata": {"a": "1"}}, headers=stale)
        for what in ("", "/freeze", "/unfreeze", "/close"):
            method = "POST" if what else "PATCH"
            path = f"/v1/wallet/{wallet}{what}"
            answer = await side.http.request(method, path, json={}, headers=stale)
            assert problem(answer) == (412, "precondition_failed")
        both = {"If-Match": '"1", "2"'}
        await change(side, wallet, json={"metadata": {"a": "2"}}, headers=both)
        await change(side, wallet, json={"metadata": {"a": "3"}}, headers={"If-Match": "*"})


@pytest.mark.parametrize("sent", ["7", 'W/"7"', '"x"', '"1",', ""])
async def test_what_is_no_etag_of_ours_is_told(sent: str) -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        path = f"/v1/wallet/{wallet}"
        answer = await side.http.patch(path, json={}, headers={"If-Match": sent})
    assert problem(answer) == (422, "validation_error")
    assert answer.json()["errors"][0]["pointer"] == "#header/If-Match"


async def test_a_frozen_wallet_takes_transfers_in_the_other_direction() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        held = await side.http.post(f"/v1/wallet/{wallet}/transfers/debit", json={"amount": "1"})
        body = {"direction": "debit", "reason": "audit: 7"}
        frozen = (await change(side, wallet, "freeze", json=body)).json()
        assert (frozen["status"], frozen["frozen"]) == ("frozen", "debit")
        assert frozen["frozen_reason"] == frozen["reason"] == "audit: 7"
        transfers = f"/v1/wallet/{wallet}/transfers"
        settle = f"{transfers}/{held.json()['id']}"
        refused = [
            await side.http.post(f"{transfers}/debit", json={"amount": "1"}),
            await side.http.post(f"{settle}/complete"),
        ]
        assert [problem(one) for one in refused] == [(409, "wallet_frozen")] * 2
        assert (await side.http.post(f"{settle}/revert")).status_code == 200
        active = (await change(side, wallet, "unfreeze", json={"reason": "done"})).json()
        assert (active["status"], active["frozen"], active["reason"]) == ("active", None, "done")
        assert (await side.http.post(f"{transfers}/debit", json={"amount": "1"})).status_code == 201


async def test_a_closed_wallet_is_closed_for_ever() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        transfers = f"/v1/wallet/{wallet}/transfers"
        held = (await side.http.post(f"{transfers}/debit", json={"amount": "1"})).json()
        early = await side.http.post(f"/v1/wallet/{wallet}/close")
        assert problem(early) == (409, "wallet_not_empty")
        assert "pending_debit 1.00 USD" in early.json()["detail"]
        await side.http.post(f"{transfers}/{held['id']}/revert")
        closed = (await change(side, wallet, "close")).json()
        assert closed["status"] == "closed"
        assert (await change(side, wallet, "close")).json()["version"] == closed["version"]
        for path in (f"{transfers}/debit", f"/v1/wallet/{wallet}/freeze"):
            answer = await side.http.post(path, json={"amount": "1"} if "debit" in path else {})
            assert problem(answer) == (409, "wallet_closed")


async def test_a_change_is_one_decision_under_its_key() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        headers = {"Idempotency-Key": "k"}
        first = await change(side, wallet, "freeze", json={}, headers=headers)
        await change(side, wallet, "unfreeze")
        again = await change(side, wallet, "freeze", json={}, headers=headers)
        assert again.content == first.content
        assert again.headers["Idempotency-Replayed"] == "true"
        other = await side.http.post(
            f"/v1/wallet/{wallet}/freeze", json={"direction": "debit"}, headers=headers
        )
        assert problem(other) == (422, "idempotency_key_reused")


async def test_a_change_without_a_key_is_recognised_when_delivered_again() -> None:
    """Its response is lost after the shard applied it, and somebody undoes it meanwhile."""
    async with http_side() as side:
        wallet = await side.new_wallet()
        side.transport.loses = lambda request: LATE if _is_freeze(request) else None
        lost = await side.http.post(f"/v1/wallet/{wallet}/freeze")
        assert lost.status_code == 504
        (freeze,) = (one for one in side.transport.requests if _is_freeze(one))
        assert freeze.items[0].idempotency is not None


def _is_freeze(request: CommandRequest) -> bool:
    return "Freeze" in type(request.items[0].command).__name__


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"metadata": {"": "x"}}, "/metadata/"),
        ({"metadata": {"a": 1}}, "/metadata/a"),
        ({"overdraft_limit": "-1"}, "/overdraft_limit"),
        ({"overdraft_limit": 1.5}, "/overdraft_limit"),
        ({"overdraft_limit": "0.001"}, "/overdraft_limit"),
        ({"currency": "EUR"}, "/currency"),
        ({"status": "closed"}, "/status"),
    ],
)
async def test_what_can_not_be_changed_is_told(body: Any, pointer: str) -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        answer = await side.http.patch(f"/v1/wallet/{wallet}", json=body)
    assert problem(answer) == (422, "validation_error")
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)


async def test_the_effect_of_each_write_says_where_the_money_goes() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet(overdraft_limit="9")
        path = f"/v1/wallet/{wallet}/transfers"
        answers = [
            (await side.http.post(f"{path}/{kind}", json={"amount": "1"})).json()
            for kind in ("debit", "credit")
        ]
        answers.append((await side.http.post(f"{path}/{answers[0]['id']}/complete")).json())
        batch = await side.batch(wallet, {"type": "credit", "amount": "1"})
        answers.append(batch.json()["items"][0]["transfer"])
    assert [one["effect"] for one in answers] == ["in", "out", "in", "out"]
