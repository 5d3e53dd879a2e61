"""After an item without a decision, its wallet's later items are not executed."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from serve_app.routes import multi_wallet_batch, ndjson
from tests.support.http_side import LATE, OVERLOADED, UNAVAILABLE, HttpSide, http_side
from wallet.commands import CommandRequest
from wallet.ids import WalletId

FAILURES = pytest.mark.parametrize("failure", [UNAVAILABLE, LATE, OVERLOADED])


@pytest.fixture
async def side() -> AsyncIterator[HttpSide]:
    async with http_side() as running:
        yield running


def line(wallet_id: str, kind: str, amount: str = "1", **fields: Any) -> dict[str, Any]:
    return {
        "wallet_id": wallet_id,
        "type": kind,
        "amount": amount,
        "status": "completed",
        **fields,
    }


def lines_of(*items: dict[str, Any]) -> bytes:
    return b"".join(msgspec.json.encode(item) + b"\n" for item in items)


def once(wallet_id: WalletId, failure: Any) -> Any:
    """Fail only the wallet's next request."""
    left = [failure]

    def fails(request: CommandRequest) -> Any:
        return left.pop() if left and request.wallet_id == wallet_id else None

    return fails


@FAILURES
async def test_a_wallet_s_lines_after_one_without_a_decision_are_not_executed(
    side: HttpSide, failure: Any
) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    side.transport.fails = once(one, failure)
    pieces = [
        lines_of(line(one, "debit", idempotency_key="1"), line(two, "debit")),
        lines_of(line(one.upper(), "credit", idempotency_key="2"), line(two, "credit")),
        lines_of(line(one, "debit")),
    ]

    results = await side.stream(*pieces)

    assert [result["status"] for result in results[1::2]] == [201, 201]
    assert results[0]["problem"]["code"] == failure.code
    for result in (results[2], results[4]):
        assert result["problem"]["code"] == "unavailable"
        assert result["problem"]["applied"] == "no"
    assert (side.minor(one), side.minor(two)) == (0, 0)

    repeated = await side.stream(*pieces)
    assert [result["status"] for result in repeated] == [201] * 5
    assert side.minor(one) == 100


@FAILURES
async def test_a_wallet_s_portions_after_one_without_a_decision_are_not_executed(
    side: HttpSide, failure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi_wallet_batch, "CHUNK_ITEMS", 2)
    one, two = await side.new_wallet(), await side.new_wallet()
    side.transport.fails = once(one, failure)
    items = [line(name, "debit") for _ in range(5) for name in (one, two)]

    answer = await side.many(*items, key="k")

    results = answer.json()["items"]
    assert [result["status"] for result in results[1::2]] == [201] * 5
    assert {result["problem"]["code"] for result in results[0:4:2]} == {str(failure.code)}
    assert [result["problem"]["applied"] for result in results[4::2]] == ["no"] * 3
    assert (side.minor(one), side.minor(two)) == (0, 500)

    repeated = await side.many(*items, key="k")
    assert [result["status"] for result in repeated.json()["items"]] == [201] * 10
    assert side.minor(one) == 500


async def test_a_refused_line_stops_nothing(side: HttpSide) -> None:
    wallet = await side.new_wallet()
    results = await side.stream(
        lines_of(line(wallet, "credit")),
        lines_of(line(wallet, "debit", "0.001")),
        lines_of(line(wallet, "debit")),
    )
    assert [result["status"] for result in results] == [409, 422, 201]


async def test_a_stream_ends_when_too_many_wallets_have_no_decision(
    side: HttpSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ndjson, "UNDECIDED_MAX", 2)
    wallets = [await side.new_wallet() for _ in range(5)]
    side.transport.fails = lambda made: UNAVAILABLE

    results = await side.stream(*(lines_of(line(wallet, "debit")) for wallet in wallets))

    assert [result["status"] for result in results] == [503] * 4
    assert results[-1]["problem"]["detail"].startswith("The stream ends here")
