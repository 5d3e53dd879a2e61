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
