"""Filters of transfer lists: what they name and nothing else, on both sides, on every page."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from projections import transfer_list
from projections.rebuild import rebuild
from runtime.settings import Settings
from tests.support.read_side import read_api
from tests.support.results import body
from tests.support.write_side import credit, debit, running_shard, settle
from wallet.commands import CreateTransfer
from wallet.ids import WalletId

SIDES = ("eventual", "strong")


def make_transfers() -> list[CreateTransfer]:
    made = [debit("100", status="completed", reference_id="first")]
    for number in range(1, 24):
        kind = (debit, credit)[number % 2]
        made.append(
            kind(
                f"{number % 5}.{number % 3}5",
                status=("pending", "completed")[number % 3 == 0],
                reference_id=f"order-{number % 4}" if number % 4 else None,
                metadata={"n": str(number % 3), "a=b": "ü "} if number % 2 else {},
            )
        )
    return made


async def write(database: str) -> WalletId:
    async with running_shard(database) as shard:
        wallet = await shard.create_wallet()
        for number, transfer in enumerate(make_transfers()):
            written = body(await shard.request(wallet, transfer))
            if written["status"] == "pending" and number % 2:
                how = ("failed", "completed")[number % 4 == 1]
                await shard.request(wallet, settle(written["id"], how))
    await rebuild(Settings(_env_file=None, database_url=database))
    return wallet


async def listed(api: httpx.AsyncClient, wallet: WalletId, **query: Any) -> list[Any]:
    """All transfers of all pages."""
    found: list[Any] = []
    while True:
        answer = await api.get(f"/v1/wallet/{wallet}/transfers", params=query)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["items"]) <= query.get("limit", 50)
        found += answer.json()["items"]
        query["cursor"] = answer.json()["next_cursor"]
        if query["cursor"] is None:
            return found


def matching(transfers: list[Any], query: dict[str, Any]) -> list[Any]:
    """Those that ``query`` names, by a rule of its own."""
    metadata = {
        name.removeprefix("metadata."): value
        for name, value in query.items()
        if name.startswith("metadata.")
    }
    return [
        one
        for one in transfers
        if all(one[name] == query.get(name, one[name]) for name in ("status", "type"))
        and query.get("reference_id") in (None, one["reference_id"])
        and float(query.get("amount_min", 0)) <= float(one["amount"])
        and float(one["amount"]) <= float(query.get("amount_max", 1_000))
        and query.get("created_from", "") <= one["created_at"] < query.get("created_before", "9")
        and metadata.items() <= one["metadata"].items()
    ]


FILTERS: list[dict[str, Any]] = [
    {},
    *({"status": status} for status in ("pending", "completed", "failed")),
    *({"type": type} for type in ("debit", "credit")),
    {"status": "pending", "type": "debit"},
    {"status": "failed", "type": "debit"},
    *({"reference_id": reference} for reference in ("order-1", "first", "order-9")),
    {"reference_id": "order-1", "type": "credit", "status": "failed"},
    *({"amount_min": amount} for amount in ("2", "2.00", "2.05", "2.051", "99999")),
    {"amount_max": "1.5"},
    {"amount_max": "0"},
    {"amount_min": "1.05", "amount_max": "3.15"},
    {"amount_min": "2.05", "amount_max": "2.050"},
    {"amount_min": "2.05", "amount_max": "2.05", "type": "debit"},
    *({"metadata.n": value} for value in ("0", "1", "")),
    {"metadata.a=b": "ü ", "metadata.n": "2"},
    {"metadata.n": "1", "status": "completed", "amount_min": "1"},
]


@pytest.mark.parametrize(("scanned_max", "sorted_max"), [(3, 2), (3, 0), (20_000, 1_000)])
async def test_a_list_has_what_its_filter_names_on_every_page(
    database: str, monkeypatch: pytest.MonkeyPatch, scanned_max: int, sorted_max: int
) -> None:
    monkeypatch.setattr(transfer_list, "SCANNED_MAX", scanned_max)
    monkeypatch.setattr(transfer_list, "SORTED_MAX", sorted_max)
    wallet = await write(database)
    async with read_api(database) as api:
        everything = await listed(api, wallet)
        assert len(everything) == len(make_transfers())
        for query in FILTERS:
            expected = matching(everything, query)
            for consistency in SIDES:
                for limit in (1, 4, 200):
                    asked = query | {"consistency": consistency, "limit": limit}
                    assert await listed(api, wallet, **asked) == expected, asked


@pytest.mark.parametrize("consistency", SIDES)
async def test_a_range_of_time_begins_with_its_first_and_ends_before_its_last(
    database: str, consistency: str
) -> None:
    wallet = await write(database)
    async with read_api(database) as api:
        everything = await listed(api, wallet)
        times = [one["created_at"] for one in everything]
        for first, last in ((times[20], times[3]), (times[-1], times[0]), (times[5], times[5])):
            query = {"created_from": first, "created_before": last, "consistency": consistency}
            expected = matching(everything, query)
            for limit in (2, 200):
                assert await listed(api, wallet, limit=limit, **query) == expected
        latest = datetime.fromisoformat(times[0]) + timedelta(microseconds=1)
        after = {"created_from": latest.isoformat(), "consistency": consistency}
        assert await listed(api, wallet, **after) == []
        before = {"created_before": times[-1], "consistency": consistency}
        assert await listed(api, wallet, **before) == []
        one_of = {"created_from": times[7], "status": everything[7]["status"]}
        assert await listed(api, wallet, **one_of) == matching(everything, one_of)


async def test_a_short_page_has_a_cursor_and_the_last_one_none(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_list, "SCANNED_MAX", 5)
    wallet = await write(database)
    async with read_api(database) as api:
        for consistency in SIDES:
            query: dict[str, Any] = {"metadata.n": "none", "consistency": consistency}
            pages = 0
            while True:
                page = (await api.get(f"/v1/wallet/{wallet}/transfers", params=query)).json()
                assert page["items"] == []
                pages += 1
                if page["next_cursor"] is None:
                    break
                query["cursor"] = page["next_cursor"]
            assert 4 <= pages <= 12


async def test_a_new_transfer_is_in_a_fresh_list_with_any_filter(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        fields = {"reference_id": "r", "metadata": {"a": "b"}}
        made = body(await shard.request(wallet, debit("7", status="pending", **fields)))
        for query in (
            {"status": "pending"},
            {"reference_id": "r"},
            {"amount_min": "7", "amount_max": "7"},
            {"metadata.a": "b"},
            {"created_from": made["created_at"]},
        ):
            for fresh in ({"consistency": "strong"}, {"min_version": 2}):
                assert [one["id"] for one in await listed(api, wallet, **query, **fresh)] == [
                    made["id"]
                ]
