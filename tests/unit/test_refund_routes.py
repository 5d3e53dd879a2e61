"""Refunding a transfer, over HTTP on a shard in memory."""

from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from tests.support.http_side import HttpSide, http_side
from wallet.ids import WalletId


async def make(side: HttpSide, wallet: WalletId, kind: str, amount: str, **fields: Any) -> str:
    body = {"amount": amount, "status": "completed", **fields}
    made = await side.http.post(f"/v1/wallet/{wallet}/transfers/{kind}", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def paid(side: HttpSide) -> tuple[WalletId, str]:
    """A wallet with 6.00 left of 10.00, and the transfer that took 4.00 out."""
    wallet = await side.new_wallet()
    await make(side, wallet, "debit", "10")
    return wallet, await make(side, wallet, "credit", "4")


async def refund(
    side: HttpSide, wallet: WalletId, transfer: str, body: Any = None, key: str | None = ""
) -> httpx.Response:
    """Under a key of its own, unless ``key`` says another."""
    headers = {} if key is None else {"Idempotency-Key": key or str(uuid4())}
    path = f"/v1/wallet/{wallet}/transfers/{transfer}/refund"
    return await side.http.post(path, json=body or {}, headers=headers)


async def settle(side: HttpSide, wallet: WalletId, transfer: str, how: str) -> httpx.Response:
    return await side.http.post(f"/v1/wallet/{wallet}/transfers/{transfer}/{how}")


async def test_a_refund_goes_the_other_way_and_names_its_transfer() -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        part = await refund(side, wallet, out, {"amount": "1.50", "reference_id": "complaint-7"})
        rest = (await refund(side, wallet, out)).json()
    first = part.json()
    assert part.status_code == 201
    assert part.headers["Location"] == f"/v1/wallet/{wallet}/transfers/{first['id']}"
    assert (first["type"], first["status"], first["amount"]) == ("debit", "completed", "1.50")
    assert (first["refunds"], first["reference_id"]) == (out, "complaint-7")
    assert first["refunded_transfer"] == {
        "refunded_amount": "1.50",
        "refund_pending_amount": "0.00",
    }
    assert (rest["amount"], rest["wallet"]["balance"]) == ("2.50", "10.00")
    assert rest["refunded_transfer"]["refunded_amount"] == "4.00"
    assert side.minor(wallet) == 1_000


@pytest.mark.parametrize("body", [{}, {"amount": "0.01"}, {"amount": "4.00"}])
async def test_no_more_is_refunded_than_was_completed(body: Any) -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        too_much = await refund(side, wallet, out, {"amount": "4.01"})
        await refund(side, wallet, out, {"amount": "1"})
        await refund(side, wallet, out, {"amount": "3", "status": "pending"})
        again = await refund(side, wallet, out, body)
    for answer in (too_much, again):
        assert (answer.status_code, answer.json()["code"]) == (409, "amount_exceeds_refundable")
    assert side.minor(wallet) == 700


async def test_a_pending_refund_counts_until_it_fails() -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        held = (await refund(side, wallet, out, {"status": "pending"})).json()
        assert held["refunded_transfer"] == {
            "refunded_amount": "0.00",
            "refund_pending_amount": "4.00",
        }
        assert (await refund(side, wallet, out, {"amount": "1"})).status_code == 409
        back = (await settle(side, wallet, held["id"], "revert")).json()
        assert back["refunded_transfer"]["refund_pending_amount"] == "0.00"
        done = await refund(side, wallet, out)
        assert done.json()["amount"] == "4.00"
        again = await settle(side, wallet, held["id"], "revert")
    assert again.json()["refunded_transfer"]["refunded_amount"] == "4.00"
    assert side.minor(wallet) == 1_000


async def test_a_refund_that_takes_money_out_needs_the_money() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        paid_in = await make(side, wallet, "debit", "10")
        await make(side, wallet, "credit", "7")
        short = await refund(side, wallet, paid_in)
        some = (await refund(side, wallet, paid_in, {"amount": "3"})).json()
    assert (short.status_code, short.json()["code"]) == (409, "insufficient_funds")
    assert (some["type"], some["effect"], some["wallet"]["balance"]) == ("credit", "out", "0.00")


async def test_what_has_completed_nothing_is_not_refunded() -> None:
    async with http_side() as side:
        wallet, _ = await paid(side)
        held = await make(side, wallet, "credit", "1", status="pending")
        pending = await refund(side, wallet, held)
        await settle(side, wallet, held, "revert")
        failed = await refund(side, wallet, held)
        unknown = await refund(side, wallet, str(uuid4()))
    for answer in (pending, failed):
        assert (answer.status_code, answer.json()["code"]) == (409, "transfer_not_completed")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "transfer_not_found")


async def test_a_refund_is_not_refunded() -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        back = (await refund(side, wallet, out)).json()["id"]
        answer = await refund(side, wallet, back)
    assert (answer.status_code, answer.json()["code"]) == (409, "transfer_is_refund")
    assert "make a new credit" in answer.json()["detail"]


async def test_a_refund_needs_a_key_and_is_made_once_under_it() -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        item = {"refund": out, "amount": "1"}
        without = [
            await refund(side, wallet, out, {"amount": "1"}, key=None),
            await side.batch(wallet, item),
            await side.many({"wallet_id": wallet, **item}),
        ]
        (line,) = await side.stream(msgspec.json.encode({"wallet_id": wallet, **item}) + b"\n")
        first = await refund(side, wallet, out, {"amount": "1"}, key="1")
        again = await refund(side, wallet, out, {"amount": "1.00"}, key="1")
        other = await refund(side, wallet, out, {"amount": "2"}, key="1")
        batches = [await side.batch(wallet, item, key="all") for _ in range(2)]
    pointers = [one.json()["errors"][0]["pointer"] for one in without]
    assert pointers == ["#header/Idempotency-Key", *["/items/0/idempotency_key"] * 2]
    assert line["status"] == 422
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    assert other.json()["code"] == "idempotency_key_reused"
    assert batches[0].json() == batches[1].json()
    assert side.minor(wallet) == 800


async def test_items_of_every_batch_refund() -> None:
    async with http_side() as side:
        for kind in ("batch", "many", "line"):
            wallet, out = await paid(side)
            item = {"refund": out, "amount": 1, "idempotency_key": kind}
            named = {"wallet_id": wallet, **item}
            if kind == "batch":
                result = (await side.batch(wallet, item)).json()["items"][0]
            elif kind == "many":
                result = (await side.many(named)).json()["items"][0]
            else:
                (result,) = await side.stream(msgspec.json.encode(named) + b"\n")
            assert (result["status"], result["transfer"]["refunds"]) == (201, out)
            assert result["transfer"]["status"] == "completed"
            assert side.minor(wallet) == 700


async def test_an_atomic_batch_takes_its_refunds_back() -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        half = {"refund": out, "amount": "2", "idempotency_key": "a"}
        refused = await side.batch(wallet, half, {"type": "credit", "amount": "99"}, atomic=True)
        assert refused.json()["code"] == "batch_refused"
        assert side.minor(wallet) == 600
        items = [{**half, "idempotency_key": key} for key in "bcd"]
        results = (await side.batch(wallet, *items)).json()["items"]
    assert [one["status"] for one in results] == [201, 201, 409]
    assert side.minor(wallet) == 1_000


@pytest.mark.parametrize(
    "more",
    [{"type": "debit"}, {"complete": str(uuid4())}, {"revert": str(uuid4())}, {"final": True}],
)
async def test_an_item_is_a_refund_or_something_else(more: Any) -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        item = {"refund": out, "idempotency_key": "k", **more}
        answer = await side.batch(wallet, item)
        wrong = await side.batch(wallet, {"refund": "no id", "idempotency_key": "k"})
    assert answer.status_code == 422
    assert wrong.json()["errors"][0]["pointer"] == "/items/0/refund"
    assert side.minor(wallet) == 600


async def test_a_frozen_direction_stops_refunds_of_the_other_one() -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        held = (await refund(side, wallet, out, {"amount": "1", "status": "pending"})).json()["id"]
        await side.http.post(f"/v1/wallet/{wallet}/freeze", json={"direction": "debit"})
        stopped = [await refund(side, wallet, out), await settle(side, wallet, held, "complete")]
        assert (await settle(side, wallet, held, "revert")).status_code == 200
        await side.http.post(f"/v1/wallet/{wallet}/unfreeze")
        await side.http.post(f"/v1/wallet/{wallet}/freeze", json={"direction": "credit"})
        goes_on = await refund(side, wallet, out)
    assert [one.json()["code"] for one in stopped] == ["wallet_frozen"] * 2
    assert goes_on.json()["amount"] == "4.00"


async def test_parts_of_holds_and_of_refunds() -> None:
    async with http_side() as side:
        wallet, _ = await paid(side)
        held = await make(side, wallet, "credit", "4", status="pending")
        path = f"/v1/wallet/{wallet}/transfers"
        for number in ("1", "2"):
            await side.http.post(
                f"{path}/{held}/complete",
                json={"amount": "1", "final": False},
                headers={"Idempotency-Key": number},
            )
        back = (await refund(side, wallet, held, {"status": "pending"})).json()
        assert back["amount"] == "2.00"
        part = await side.http.post(
            f"{path}/{back['id']}/complete",
            json={"amount": "0.50", "final": False},
            headers={"Idempotency-Key": "3"},
        )
        done = (await settle(side, wallet, held, "complete")).json()
        rest = (await settle(side, wallet, back["id"], "revert")).json()
        last = (await refund(side, wallet, held)).json()
    assert part.json()["refunded_transfer"] == {
        "refunded_amount": "0.50",
        "refund_pending_amount": "1.50",
    }
    assert (done["refunded_amount"], done["refund_pending_amount"]) == ("0.50", "1.50")
    assert rest["refunded_transfer"]["refund_pending_amount"] == "0.00"
    assert last["amount"] == "3.50"
    assert side.minor(wallet) == 600


@pytest.mark.parametrize("amount", ["0", "-1", "1e2", 1.5, None, "", True])
async def test_what_is_no_amount_is_told(amount: Any) -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        single = await refund(side, wallet, out, {"amount": amount})
        item = {"refund": out, "amount": amount, "idempotency_key": "k"}
        batch = await side.batch(wallet, item)
    for answer, pointer in ((single, "/amount"), (batch, "/items/0/amount")):
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_only_a_pending_refund_expires() -> None:
    async with http_side() as side:
        wallet, out = await paid(side)
        done = await refund(side, wallet, out, {"expires_in_s": 60})
        held = await refund(side, wallet, out, {"expires_in_s": 60, "status": "pending"})
    assert done.json()["errors"][0]["pointer"] == "/expires_in_s"
    assert held.json()["on_expiry"] == "fail"
