"""Transfers that expire, over HTTP on a shard in memory."""

from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from tests.support.domain import NOW
from tests.support.http_side import HttpSide, http_side
from wallet.ids import WalletId


async def create(side: HttpSide, wallet: WalletId, **body: Any) -> httpx.Response:
    return await side.http.post(
        f"/v1/wallet/{wallet}/transfers/debit", json={"amount": "1", **body}
    )


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    errors = body.get("errors") or [{"pointer": ""}]
    return answer.status_code, body["code"], errors[0]["pointer"]


IN_A_MINUTE = (NOW + timedelta(seconds=60)).isoformat()
SHOWN = "2026-01-02T03:05:05.678900Z"


@pytest.mark.parametrize(
    "sent",
    [
        {"expires_in_s": 60},
        {"expires_at": IN_A_MINUTE},
        {"expires_at": SHOWN},
        {"expires_at": "2026-01-02T05:05:05.6789+02:00"},
    ],
    ids=str,
)
async def test_a_transfer_shows_when_it_expires_however_it_was_said(sent: Any) -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        made = (await create(side, wallet, **sent)).json()
        shown = (made["expires_at"], made["on_expiry"])
        done = await side.http.post(f"/v1/wallet/{wallet}/transfers/{made['id']}/complete")
    assert shown == (SHOWN, "fail")
    assert (done.json()["expires_at"], done.json()["status"]) == (SHOWN, "completed")


async def test_a_transfer_without_a_time_says_nothing_of_it() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        made = (await create(side, wallet)).json()
    assert not made.keys() & {"expires_at", "on_expiry", "expires_in_s"}


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({"expires_in_s": 0}, "/expires_in_s"),
        ({"expires_in_s": -5}, "/expires_in_s"),
        ({"expires_in_s": 1.5}, "/expires_in_s"),
        ({"expires_in_s": "60"}, "/expires_in_s"),
        ({"expires_in_s": True}, "/expires_in_s"),
        ({"expires_in_s": 315_576_001}, "/expires_in_s"),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"expires_at": "2026-03-01"}, "/expires_at"),
        ({"expires_at": "2026-03-01T12:00:00"}, "/expires_at"),
        ({"expires_at": "2026-02-30T12:00:00Z"}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "/expires_at"),
        ({"expires_at": 1_800_000_000}, "/expires_at"),
        ({"expires_at": SHOWN, "expires_in_s": 60}, "/expires_in_s"),
        ({"expires_in_s": 60, "status": "completed"}, "/expires_in_s"),
        ({"expires_at": SHOWN, "status": "completed"}, "/expires_at"),
        ({"on_expiry": "complete"}, "/on_expiry"),
        ({"expires_in_s": 60, "on_expiry": "revert"}, "/on_expiry"),
    ],
    ids=str,
)
async def test_what_says_no_time_or_is_ignored_is_told(sent: Any, pointer: str) -> None:
    item = {"type": "debit", "amount": "1", **sent}
    async with http_side() as side:
        wallet = await side.new_wallet()
        single = await create(side, wallet, **sent)
        batch = await side.batch(wallet, item)
        many = await side.many({"wallet_id": wallet, **item})
        (line,) = await side.stream(msgspec.json.encode({"wallet_id": wallet, **item}) + b"\n")
    assert problem(single) == (422, "validation_error", pointer)
    for answer in (batch, many):
        assert problem(answer) == (422, "validation_error", f"/items/0{pointer}")
    assert line["status"] == 422
    assert side.minor(wallet) == 0


async def test_a_settlement_can_not_say_when_it_expires() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        made = (await create(side, wallet)).json()["id"]
        for field in ({"expires_in_s": 60}, {"expires_at": SHOWN}, {"on_expiry": "fail"}):
            batch = await side.batch(wallet, {"complete": made, **field})
            assert problem(batch)[:2] == (422, "validation_error")
            path = f"/v1/wallet/{wallet}/transfers/{made}/complete"
            single = await side.http.post(path, json=field)
            assert problem(single)[:2] == (422, "validation_error")


async def test_items_of_every_batch_may_expire() -> None:
    item = {"type": "debit", "amount": "1", "expires_in_s": 60, "on_expiry": "complete"}
    async with http_side() as side:
        wallet = await side.new_wallet()
        batch = await side.batch(wallet, item)
        many = await side.many({"wallet_id": wallet, **item})
        (line,) = await side.stream(msgspec.json.encode({"wallet_id": wallet, **item}) + b"\n")
    for result in (batch.json()["items"][0], many.json()["items"][0], line):
        made = result["transfer"]
        assert (made["expires_at"], made["on_expiry"]) == (SHOWN, "complete")


async def test_beyond_the_bounds_is_a_stored_refusal() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        path, key = f"/v1/wallet/{wallet}/transfers/debit", {"Idempotency-Key": "k"}
        body = {"amount": "1", "expires_at": "2031-01-01T00:00:00Z"}
        first, again = [await side.http.post(path, json=body, headers=key) for _ in range(2)]
        past = await create(side, wallet, expires_at="2026-01-02T03:04:05Z")
    assert first.status_code == again.status_code == 422
    assert first.json()["code"] == "expiry_out_of_range"
    assert again.headers["Idempotency-Replayed"] == "true"
    assert past.json()["code"] == "expiry_out_of_range"
    assert "by the service's clock" in past.json()["detail"]


async def test_a_key_covers_the_expiry() -> None:
    async with http_side() as side:
        wallet = await side.new_wallet()
        path, key = f"/v1/wallet/{wallet}/transfers/debit", {"Idempotency-Key": "k"}
        bodies: list[dict[str, Any]] = [
            {"expires_at": SHOWN},
            {"expires_at": "2026-01-02T04:05:05.678900+01:00"},
            {"expires_at": SHOWN, "on_expiry": "fail"},
            {"expires_at": SHOWN, "on_expiry": "complete"},
            {"expires_in_s": 60},
            {},
        ]
        answers = [
            await side.http.post(path, json={"amount": "1", **body}, headers=key) for body in bodies
        ]
    assert [one.status_code for one in answers] == [201, 201, 201, 422, 422, 422]
    assert answers[3].json()["code"] == "idempotency_key_reused"
