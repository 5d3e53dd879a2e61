"""Completing a part of a hold, over HTTP on a shard in memory."""

from typing import Any

import httpx
import msgspec
import pytest

from tests.support.http_side import HttpSide, http_side
from wallet.ids import WalletId


async def holding(side: HttpSide) -> tuple[WalletId, str]:
    """A wallet with 10.00, of which 4.00 are held."""
    wallet = await side.new_wallet()
    base = f"/v1/wallet/{wallet}/transfers"
    await side.http.post(f"{base}/debit", json={"amount": "10", "status": "completed"})
    held = await side.http.post(f"{base}/credit", json={"amount": "4"})
    return wallet, held.json()["id"]


async def settle(
    side: HttpSide, wallet: WalletId, transfer: str, how: str = "complete", **sent: Any
) -> httpx.Response:
    return await side.http.post(f"/v1/wallet/{wallet}/transfers/{transfer}/{how}", **sent)


@pytest.mark.parametrize("amount", ["1.50", "1.5"])
async def test_a_part_is_completed_and_the_answer_says_how_much(amount: str) -> None:
    async with http_side() as side:
        wallet, held = await holding(side)
        done = (await settle(side, wallet, held, json={"amount": amount})).json()
        again = (await settle(side, wallet, held, json={"amount": "1.50"})).json()
    assert (done["status"], done["amount"], done["completed_amount"]) == (
        "completed",
        "4.00",
        "1.50",
    )
    assert (done["wallet"]["balance"], done["wallet"]["pending_credit"]) == ("8.50", "0.00")
    assert again == done


async def test_items_of_every_batch_complete_parts() -> None:
    async with http_side() as side:
        for kind in ("batch", "many", "line"):
            wallet, held = await holding(side)
            item = {"complete": held, "amount": 1}
            named = {"wallet_id": wallet, **item}
            if kind == "batch":
                result = (await side.batch(wallet, item)).json()["items"][0]
            elif kind == "many":
                result = (await side.many(named)).json()["items"][0]
            else:
                (result,) = await side.stream(msgspec.json.encode(named) + b"\n")
            assert result["transfer"]["completed_amount"] == "1.00"
            assert side.minor(wallet) == 900


async def test_more_than_the_hold_and_another_amount_are_conflicts() -> None:
    async with http_side() as side:
        wallet, held = await holding(side)
        more = await settle(side, wallet, held, json={"amount": "4.01"})
        assert (more.status_code, more.json()["code"]) == (409, "amount_exceeds_hold")
        await settle(side, wallet, held, json={"amount": "1"})
        for body in ({"amount": "2"}, {}):
            other = await settle(side, wallet, held, json=body)
            assert other.json()["code"] == "transfer_already_completed"
    assert side.minor(wallet) == 900


@pytest.mark.parametrize("amount", ["0", "-1", "1e2", 1.5, None, "", True])
async def test_what_is_no_amount_is_told(amount: Any) -> None:
    async with http_side() as side:
        wallet, held = await holding(side)
        single = await settle(side, wallet, held, json={"amount": amount})
        batch = await side.batch(wallet, {"complete": held, "amount": amount})
    for answer, pointer in ((single, "/amount"), (batch, "/items/0/amount")):
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert side.minor(wallet) == 600


async def test_a_reversal_has_no_amount() -> None:
    async with http_side() as side:
        wallet, held = await holding(side)
        single = await settle(side, wallet, held, "revert", json={"amount": "1"})
        batch = await side.batch(wallet, {"revert": held, "amount": "1"})
    assert (single.status_code, batch.status_code) == (422, 422)
    assert batch.json()["errors"][0]["pointer"] == "/items/0/amount"
    assert side.minor(wallet) == 600


async def test_a_part_leaves_the_rest_held_and_needs_a_key() -> None:
    async with http_side() as side:
        wallet, held = await holding(side)
        body = {"amount": "1", "final": False}
        without = await settle(side, wallet, held, json=body)
        item = {"complete": held, **body}
        refused = [
            await side.batch(wallet, item, key="batch"),
            await side.many({"wallet_id": wallet, **item}),
        ]
        first = await settle(side, wallet, held, json=body, headers={"Idempotency-Key": "1"})
        again = await settle(side, wallet, held, json=body, headers={"Idempotency-Key": "1"})
        second = await side.batch(wallet, {**item, "idempotency_key": "2"})
        end = await settle(side, wallet, held, json={"amount": "1.50"})
    assert without.json()["errors"][0]["pointer"] == "#header/Idempotency-Key"
    for answer in refused:
        assert answer.json()["errors"][0]["pointer"] == "/items/0/idempotency_key"
    assert (first.json()["status"], first.json()["pending_amount"]) == ("pending", "3.00")
    assert again.json() == first.json()
    assert second.json()["items"][0]["transfer"]["completed_amount"] == "2.00"
    assert (end.json()["status"], end.json()["completed_amount"]) == ("completed", "3.50")
    assert side.minor(wallet) == 650


@pytest.mark.parametrize("sent", [{"final": True}, {"final": False}, {"final": None}, {"final": 1}])
async def test_final_goes_with_an_amount(sent: dict[str, Any]) -> None:
    async with http_side() as side:
        wallet, held = await holding(side)
        key = {"Idempotency-Key": "k"}
        answers = [
            await settle(side, wallet, held, json=sent, headers=key),
            await settle(side, wallet, held, "revert", json=sent),
            await side.batch(wallet, {"complete": held, "idempotency_key": "i", **sent}),
            await side.batch(wallet, {"revert": held, **sent}),
            await side.batch(wallet, {"type": "debit", "amount": "1", **sent}),
        ]
    assert [one.status_code for one in answers] == [422] * 5
    assert side.minor(wallet) == 600


async def test_a_completion_of_a_part_always_has_a_key() -> None:
    """So the service's own second delivery is recognised, also after other parts."""
    async with http_side() as side:
        wallet, held = await holding(side)
        await settle(side, wallet, held, json={"amount": "1"})
        await side.batch(wallet, {"complete": held, "amount": "1"})
        await side.many({"wallet_id": wallet, "complete": held, "amount": "1"})
        await settle(side, wallet, held)
        await side.batch(wallet, {"complete": held, "amount": "1"}, key="all")
        keys = [
            item.idempotency and item.idempotency.key.partition("-service-")[0]
            for one in side.transport.requests[3:]
            for item in one.items
        ]
    assert keys == ["wallet", "wallet", "wallet", None, None]


async def test_a_key_covers_the_amount() -> None:
    async with http_side() as side:
        wallet, held = await holding(side)
        key = {"Idempotency-Key": "k"}
        answers = [
            await settle(side, wallet, held, json=body, headers=key)
            for body in ({"amount": "1"}, {"amount": "1.00"}, {"amount": "2"}, {})
        ]
    assert [one.status_code for one in answers] == [200, 200, 422, 422]
    assert answers[1].headers["Idempotency-Replayed"] == "true"
