"""A key on a batch over many wallets: it belongs to the whole request, not to its parts."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from serve_app.routes import multi_wallet_batch
from tests.support.http_side import LATE, OVERLOADED, UNAVAILABLE, HttpSide, http_side
from tests.support.ids import new_id
from wallet.commands import CommandRequest
from wallet.ids import IdempotencyKey, WalletId, batch_scope

_REPLAYED = "idempotency-replayed"
_MAYBE_EARLIER = "An earlier request with the same key may have been applied"


@pytest.fixture
async def side() -> AsyncIterator[HttpSide]:
    async with http_side() as running:
        yield running


def debit(wallet_id: str, amount: str = "1", **fields: Any) -> dict[str, Any]:
    return {
        "wallet_id": wallet_id,
        "type": "debit",
        "amount": amount,
        "status": "completed",
        **fields,
    }


def of_wallet(wallet_id: WalletId, failure: Any) -> Any:
    def fails(request: CommandRequest) -> Any:
        return failure if request.wallet_id == wallet_id else None

    return fails


# -- one key, one request ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("A", "AB"),
        ("AB", "A"),
        ("AB", "BA"),
        ("A", "B"),
        ("AB", "BC"),
        ("AA", "A"),
        ("ABA", "AAB"),
    ],
)
async def test_another_request_under_a_batch_s_key_is_refused_and_moves_nothing(
    side: HttpSide, first: str, other: str
) -> None:
    wallets = {name: await side.new_wallet() for name in "ABC"}
    await side.many(*(debit(wallets[name]) for name in first), key="k")
    before = {name: side.minor(wallets[name]) for name in "ABC"}

    refused = await side.many(*(debit(wallets[name]) for name in other), key="k")

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert _REPLAYED not in refused.headers
    assert {name: side.minor(wallets[name]) for name in "ABC"} == before


@pytest.mark.parametrize("change", [{"amount": "2"}, {"reference_id": "r"}, {"status": "pending"}])
async def test_a_change_in_any_item_makes_another_request(
    side: HttpSide, change: dict[str, str]
) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    await side.many(debit(one), debit(two), key="k")

    refused = await side.many(debit(one), debit(two) | change, key="k")

    assert refused.json()["code"] == "idempotency_key_reused"


async def test_the_spelling_of_an_id_and_of_an_amount_makes_no_other_request(
    side: HttpSide,
) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    first = await side.many(debit(one, "1.50"), debit(two, "2"), key="k")

    again = await side.many(debit(one.upper(), "1.5"), debit(two, 2), key="k")  # type: ignore[arg-type]  # not an id as stored

    assert again.headers[_REPLAYED] == "true"
    assert again.content == first.content


async def test_a_wallet_s_batch_is_another_request_than_a_part_of_a_batch(
    side: HttpSide,
) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    item = {"type": "debit", "amount": "1", "status": "completed"}
    await side.batch(one, item, key="k")
    await side.many(debit(two), key="j")

    part = await side.many(debit(one), debit(two), key="k")
    whole = await side.batch(two, item, key="j")

    assert [one["status"] for one in part.json()["items"]] == [422, 201]
    assert part.json()["items"][0]["problem"]["code"] == "idempotency_key_reused"
    assert (whole.status_code, whole.json()["code"]) == (422, "idempotency_key_reused")
    assert (side.minor(one), side.minor(two)) == (100, 200)


async def test_portions_after_one_whose_key_is_another_request_s_are_refused_too(
    side: HttpSide,
) -> None:
    wallet = await side.new_wallet()
    await side.http.post(
        f"/v1/wallet/{wallet}/transfers/debit",
        json={"amount": "1", "status": "completed"},
        headers={"Idempotency-Key": "k"},
    )

    answer = await side.many(*[debit(wallet, "0.01")] * 1_500, key="k")

    assert {one["problem"]["code"] for one in answer.json()["items"]} == {"idempotency_key_reused"}
    assert side.minor(wallet) == 100


async def test_a_request_without_a_key_costs_no_further_command(side: HttpSide) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    side.transport.requests.clear()
    await side.many(debit(one), debit(two))
    assert {made.wallet_id for made in side.transport.requests} == {one, two}
    await side.many(debit(one), debit(two), key="k")
    assert len(side.transport.requests) == 5


# -- what may go wrong on the way ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "status"), [(UNAVAILABLE, 503), (LATE, 504), (OVERLOADED, 429)]
)
async def test_without_the_key_s_record_nothing_of_the_batch_is_started(
    side: HttpSide, failure: Any, status: int
) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    parts = {one, two}
    side.transport.loses = lambda made: None if made.wallet_id in parts else failure

    failed = await side.many(debit(one), debit(two), key="k")

    assert failed.status_code == status
    assert failed.json().get("applied", "no") == "no"
    assert (side.minor(one), side.minor(two)) == (0, 0)
    side.transport.loses = lambda _: None
    done = await side.many(debit(one), debit(two), key="k")
    assert [made["status"] for made in done.json()["items"]] == [201, 201]
    assert _REPLAYED not in done.headers


async def test_a_claim_alone_keeps_the_key_for_its_request(side: HttpSide) -> None:
    # As if the process had ended between the claim and the parts.
    one, two = await side.new_wallet(), await side.new_wallet()
    side.transport.fails = lambda made: UNAVAILABLE if made.wallet_id in {one, two} else None
    await side.many(debit(one), key="k")
    side.transport.fails = lambda _: None

    other = await side.many(debit(two), key="k")
    done = await side.many(debit(one), key="k")

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert done.json()["items"][0]["status"] == 201
    assert _REPLAYED not in done.headers
    assert (side.minor(one), side.minor(two)) == (100, 0)


async def test_a_batch_that_was_done_in_part_is_finished_under_its_key(side: HttpSide) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    side.transport.fails = of_wallet(two, UNAVAILABLE)
    part = await side.many(debit(one), debit(two), key="k")
    assert [made["status"] for made in part.json()["items"]] == [201, 503]
    side.transport.fails = lambda _: None

    other = await side.many(debit(one), debit(two, "7"), key="k")
    rest = await side.many(debit(one), debit(two), key="k")
    again = await side.many(debit(one), debit(two), key="k")

    assert other.json()["code"] == "idempotency_key_reused"
    assert [made["status"] for made in rest.json()["items"]] == [201, 201]
    assert rest.json()["items"][0] == part.json()["items"][0]
    assert _REPLAYED not in rest.headers
    assert again.headers[_REPLAYED] == "true"
    assert again.content == rest.content
    assert (side.minor(one), side.minor(two)) == (100, 100)


async def test_an_answer_that_was_lost_is_repeated_under_the_key(side: HttpSide) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    side.transport.loses = of_wallet(two, LATE)
    lost = await side.many(debit(one), debit(two), key="k")
    assert lost.json()["items"][1]["problem"]["applied"] == "unknown"
    side.transport.loses = lambda _: None

    again = await side.many(debit(one), debit(two), key="k")

    assert [made["status"] for made in again.json()["items"]] == [201, 201]
    assert again.headers[_REPLAYED] == "true"
    assert side.minor(two) == 100


async def test_an_undecided_repetition_does_not_deny_what_was_applied_before(
    side: HttpSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi_wallet_batch, "CHUNK_ITEMS", 2)
    one, two = await side.new_wallet(), await side.new_wallet()
    items = [debit(one), debit(one), debit(one), debit(two)]
    await side.many(*items, key="k")  # Its answer is lost.
    side.transport.fails = of_wallet(one, UNAVAILABLE)

    again = (await side.many(*items, key="k")).json()["items"]

    assert [result["status"] for result in again] == [503, 503, 503, 201]
    for result in again[:3]:
        assert result["problem"]["applied"] == "unknown"
        assert _MAYBE_EARLIER in result["problem"]["detail"]
    side.transport.fails = lambda _: None
    assert [result["status"] for result in (await side.many(*items, key="k")).json()["items"]] == [
        201
    ] * 4
    assert side.minor(one) == 300


async def test_a_repetition_whose_key_cannot_be_read_speaks_of_itself_alone(
    side: HttpSide,
) -> None:
    one = await side.new_wallet()
    await side.many(debit(one), key="k")  # Its answer is lost.
    side.transport.fails = of_wallet(batch_scope(IdempotencyKey("k")), UNAVAILABLE)

    again = await side.many(debit(one), key="k")

    assert (again.status_code, again.json()["applied"]) == (503, "no")
    assert "This request applied nothing." in again.json()["detail"]
    assert _MAYBE_EARLIER in again.json()["detail"]


@pytest.mark.parametrize("key", ["k", None])
async def test_a_first_request_says_that_it_applied_nothing(
    side: HttpSide, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setattr(multi_wallet_batch, "CHUNK_ITEMS", 2)
    one = await side.new_wallet()
    side.transport.fails = of_wallet(one, UNAVAILABLE)

    results = (await side.many(*[debit(one)] * 3, key=key)).json()["items"]

    assert [result["problem"]["applied"] for result in results] == ["no"] * 3
    assert side.minor(one) == 0


# -- keys of the release before ------------------------------------------------------------------


async def test_a_batch_that_the_release_before_did_is_replayed(side: HttpSide) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    first = await side.many(debit(one), debit(two), key="k")
    _as_before(side, {one, two})

    again = await side.many(debit(one), debit(two), key="k")

    assert again.headers[_REPLAYED] == "true"
    assert again.json() == first.json()
    assert (side.minor(one), side.minor(two)) == (100, 100)


def _as_before(side: HttpSide, wallets: set[WalletId]) -> None:
    """Delete the record of the whole request, as the previous release had none."""
    kept = {
        at: stored
        for at, stored in side.journal.database.idempotency_keys.items()
        if at[0] in wallets
    }
    side.journal.database.idempotency_keys.clear()
    for at, stored in kept.items():
        answer = msgspec.json.decode(stored.answer, type=dict[str, msgspec.Raw])
        del answer["request"]
        side.journal.database.idempotency_keys[at] = type(stored)(
            fingerprint=stored.fingerprint,
            request_id=stored.request_id,
            refused=stored.refused,
            answer=msgspec.json.encode(answer),
            version=stored.version,
        )


# -- a replay is the first answer again ----------------------------------------------------------


async def test_a_replay_has_the_first_answer_s_bytes_whatever_was_in_it(side: HttpSide) -> None:
    one, two = await side.new_wallet(), await side.new_wallet()
    await side.many(debit(one, idempotency_key="own"))
    items = [
        debit(one, idempotency_key="own"),
        debit(two),
        debit(one, "0.001"),
        {"wallet_id": two, "type": "credit", "amount": "100"},
        {"wallet_id": two, "complete": new_id()},
        debit(new_id()),
        debit("no id at all"),
    ]

    first = await side.many(*items, key="k")
    again = await side.many(*items, key="k")

    assert [made["status"] for made in first.json()["items"]] == [201, 201, 422, 409, 404, 404, 404]
    assert first.json()["items"][0]["replayed"] is True
    assert _REPLAYED not in first.headers
    assert again.headers[_REPLAYED] == "true"
    assert again.content == first.content


async def test_portions_of_one_wallet_are_replayed_together(side: HttpSide) -> None:
    wallet = await side.new_wallet()
    items = [debit(wallet, "0.01")] * 2_500

    first, again = [await side.many(*items, key="k") for _ in range(2)]

    assert side.minor(wallet) == 2_500
    assert again.headers[_REPLAYED] == "true"
    assert again.content == first.content


async def test_a_wallet_batch_s_replay_keeps_the_marks_of_its_items(side: HttpSide) -> None:
    wallet = await side.new_wallet()
    keyed = {"type": "debit", "amount": "1", "idempotency_key": "own"}
    await side.batch(wallet, keyed)

    first = await side.batch(wallet, keyed, {"type": "debit", "amount": "0.001"}, key="k")
    again = await side.batch(wallet, keyed, {"type": "debit", "amount": "0.001"}, key="k")

    assert first.json()["items"][0]["replayed"] is True
    assert _REPLAYED not in first.headers
    assert again.headers[_REPLAYED] == "true"
    assert again.content == first.content


async def test_an_atomic_refusal_s_replay_is_the_first_refusal(side: HttpSide) -> None:
    wallet = await side.new_wallet()
    items = [{"type": "debit", "amount": "1"}, {"type": "credit", "amount": "5"}]

    first = await side.batch(wallet, *items, key="k", atomic=True)
    again = await side.batch(wallet, *items, key="k", atomic=True)

    assert (first.status_code, again.status_code) == (409, 409)
    assert _REPLAYED not in first.headers
    assert again.headers[_REPLAYED] == "true"
    assert again.content == first.content
    assert first.json()["request_id"] == first.headers["x-request-id"]


async def test_an_atomic_refusal_by_an_item_refused_before_is_replayed_alike(
    side: HttpSide,
) -> None:
    wallet = await side.new_wallet()
    refused = {"type": "credit", "amount": "5", "idempotency_key": "own"}
    await side.batch(wallet, refused)

    first, again = [await side.batch(wallet, refused, key="k", atomic=True) for _ in range(2)]

    assert first.status_code == 409
    assert _REPLAYED not in first.headers
    assert again.headers[_REPLAYED] == "true"
    assert again.content == first.content


@pytest.mark.parametrize("amount", ["1", "1000"])
async def test_a_single_transfer_s_replay_is_the_first_answer(side: HttpSide, amount: str) -> None:
    wallet = await side.new_wallet()
    sent: dict[str, Any] = {
        "url": f"/v1/wallet/{wallet}/transfers/credit",
        "json": {"amount": amount},
        "headers": {"Idempotency-Key": "k"},
    }
    await side.batch(wallet, {"type": "debit", "amount": "10", "status": "completed"})

    first, again = [await side.http.post(**sent) for _ in range(2)]

    assert first.status_code == again.status_code
    assert again.headers[_REPLAYED] == "true"
    assert again.content == first.content
