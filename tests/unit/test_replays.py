"""A request that is repeated under its key: the same bytes, marked as a replay."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serve_app.http.problems import problem_counts
from tests.support.http_side import HttpSide, http_side
from wallet.ids import WalletId

DEBIT = {"type": "debit", "amount": "5", "status": "completed"}
CREDIT = {"type": "credit", "amount": "9", "status": "completed"}


@pytest.fixture
async def side() -> AsyncIterator[HttpSide]:
    async with http_side() as running:
        yield running


async def twice(side: HttpSide, path: str, body: Any) -> httpx.Response:
    """The first answer, once the second was found to be the same but for the mark."""
    first, again = [
        await side.http.post(path, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers.get("location") == first.headers.get("location")
    return first


async def test_a_replayed_wallet_is_the_first_one_and_where_it_was(side: HttpSide) -> None:
    made = await twice(side, "/v1/wallet", {})
    assert made.status_code == 201
    assert made.headers["location"] == f"/v1/wallet/{made.json()['id']}"
    assert list(side.journal.database.wallets) == [made.json()["id"]]


async def test_a_replayed_transfer_is_the_first_one_and_where_it_was(side: HttpSide) -> None:
    wallet = await side.new_wallet()
    made = await twice(side, f"/v1/wallet/{wallet}/transfers/debit", {"amount": "5"})
    assert made.status_code == 201
    assert made.headers["location"] == f"/v1/wallet/{wallet}/transfers/{made.json()['id']}"


async def test_a_replayed_refusal_is_the_first_one(side: HttpSide) -> None:
    wallet = await side.new_wallet()
    refused = await twice(side, f"/v1/wallet/{wallet}/transfers/credit", {"amount": "9"})
    assert refused.status_code == 409
    assert "location" not in refused.headers


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_replayed_batch_is_the_first_one(side: HttpSide, atomic: bool) -> None:
    wallet = await side.new_wallet()
    body = {"items": [DEBIT, CREDIT], "atomic": atomic}
    answer = await twice(side, f"/v1/wallet/{wallet}/transfers/batch", body)
    assert answer.status_code == (409 if atomic else 200)
    assert side.minor(wallet) == (0 if atomic else 500)


async def test_a_replayed_batch_of_many_wallets_is_the_first_one(side: HttpSide) -> None:
    wallets = [await side.new_wallet() for _ in range(2)]
    items = [{**item, "wallet_id": wallet} for wallet in wallets for item in (DEBIT, CREDIT)]
    answer = await twice(side, "/v1/transfers/batch", {"items": items})
    assert [one["status"] for one in answer.json()["items"]] == [201, 409] * 2


async def problems_of_a_batch(side: HttpSide, wallet: WalletId, *items: Any) -> dict[str, int]:
    """The metric's counts for one atomic batch under the key ``k``."""
    before = dict(problem_counts)
    await side.batch(wallet, *items, key="k", atomic=True)
    counted = {code: n - before.get(code, 0) for code, n in problem_counts.items()}
    return {code: n for code, n in counted.items() if n}


async def test_a_batch_that_fails_as_a_whole_counts_as_one_problem(side: HttpSide) -> None:
    wallet = await side.new_wallet()
    assert await problems_of_a_batch(side, wallet, DEBIT, CREDIT) == {"batch_refused": 1}
    assert await problems_of_a_batch(side, wallet, CREDIT) == {"idempotency_key_reused": 1}
