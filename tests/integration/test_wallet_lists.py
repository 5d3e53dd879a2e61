"""Lists of wallets: what the filter names and nothing else, newest first, on both sides."""

from typing import Any

import httpx
import pytest

from projections import wallet_list
from projections.rebuild import rebuild
from runtime.settings import Settings
from tests.support.read_side import read_api
from tests.support.write_side import debit, running_shard
from wallet.commands import CloseWallet, FreezeWallet, UpdateWallet

SIDES = ("eventual", "strong")
WALLETS = 24


async def write(database: str) -> None:
    """Wallets of three currencies, some frozen, closed, and with other metadata than at first."""
    async with running_shard(database) as shard:
        for number in range(WALLETS):
            wallet = await shard.create_wallet(
                currency=("USD", "EUR", "JPY")[number % 3],
                scale=(2, 2, 0)[number % 3],
                reference_id=f"{('shop', 'shop_a', 'ü')[number % 3]}-{number}"
                if number % 4
                else None,
                metadata={"n": str(number % 2)} if number % 3 else {},
            )
            if number % 5 == 0:
                await shard.request(wallet, FreezeWallet(direction="debit"), key="freeze")
            if number % 7 == 0:
                await shard.request(wallet, CloseWallet(), key="close")
            elif number % 4 == 0:
                await shard.request(wallet, UpdateWallet(metadata={"n": "7"}), key="update")
    await rebuild(Settings(_env_file=None, database_url=database))


async def listed(api: httpx.AsyncClient, **query: Any) -> list[Any]:
    """All wallets of all pages."""
    found: list[Any] = []
    while True:
        answer = await api.get("/v1/wallet", params=query)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["items"]) <= query.get("limit", 50)
        found += answer.json()["items"]
        query["cursor"] = answer.json()["next_cursor"]
        if query["cursor"] is None:
            return found


def matching(wallets: list[Any], query: dict[str, Any]) -> list[Any]:
    """Those that ``query`` names, by a rule of its own."""
    return [
        one
        for one in wallets
        if all(one[name] == query.get(name, one[name]) for name in ("currency", "status"))
        and query.get("reference_id", one["reference_id"]) == one["reference_id"]
        and (one["reference_id"] or "").startswith(query.get("reference_id_prefix", ""))
        and query.get("created_from", "") <= one["created_at"] < query.get("created_before", "9")
        and query.get("metadata.n") in (None, one["metadata"].get("n"))
    ]


FILTERS: list[dict[str, Any]] = [
    {},
    *({"currency": currency} for currency in ("USD", "JPY", "CHF")),
    *({"status": status} for status in ("active", "frozen", "closed")),
    {"status": "frozen", "currency": "USD"},
    *({"reference_id_prefix": prefix} for prefix in ("shop", "shop_", "shop-1", "s%", "ü", "x")),
    {"reference_id_prefix": "shop", "status": "active", "metadata.n": "1"},
    *({"metadata.n": value} for value in ("0", "1", "7", "9")),
    {"reference_id": "shop-3"},
    {"reference_id": "shop-3", "currency": "EUR"},
    {"reference_id": "nobody"},
]


@pytest.mark.parametrize(("scanned_max", "sorted_max"), [(20_000, 1_000), (3, 2), (4, 0)])
async def test_a_list_has_what_its_filter_names_on_every_page(
    database: str, monkeypatch: pytest.MonkeyPatch, scanned_max: int, sorted_max: int
) -> None:
    monkeypatch.setattr(wallet_list, "SCANNED_MAX", scanned_max)
    monkeypatch.setattr(wallet_list, "SORTED_MAX", sorted_max)
    await write(database)
    async with read_api(database) as api:
        everything = await listed(api)
        assert len(everything) == WALLETS
        times = [one["created_at"] for one in everything]
        assert times == sorted(times, reverse=True)
        ranges = [
            {"created_from": times[9], "created_before": times[2]},
            {"created_from": times[2], "created_before": times[2]},
            {"created_before": times[4], "currency": "EUR"},
            {"created_from": times[4], "reference_id_prefix": "shop"},
        ]
        for query in FILTERS + ranges:
            expected = matching(everything, query)
            for consistency in SIDES:
                for limit in (1, 4, 200):
                    asked = query | {"consistency": consistency, "limit": limit}
                    assert await listed(api, **asked) == expected, asked


async def test_pages_neither_skip_nor_repeat_while_wallets_arrive(database: str) -> None:
    await write(database)
    async with running_shard(database) as shard, read_api(database) as api:
        before = [one["id"] for one in await listed(api, consistency="strong")]
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 5, "consistency": "strong"}
        while "cursor" not in query or query["cursor"] is not None:
            page = (await api.get("/v1/wallet", params=query)).json()
            seen += [one["id"] for one in page["items"]]
            query["cursor"] = page["next_cursor"]
            for _ in range(3):
                await shard.request(await shard.create_wallet(), debit("1"))
    assert seen == before


async def test_a_new_wallet_is_in_a_strong_list_at_once(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet(reference_id="new")
        for query in ({}, {"reference_id_prefix": "n"}, {"currency": "USD"}, {"status": "active"}):
            found = await listed(api, consistency="strong", **query)
            assert [one["id"] for one in found] == [wallet]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"min_version": 1}, "min_version"),
        ({"cursor": "AAAAAAAAAAI"}, "cursor"),
        ({"currency": "usd"}, "currency"),
        ({"status": "open"}, "status"),
        ({"reference_id_prefix": ""}, "reference_id_prefix"),
        ({"metadata.": "x"}, "metadata."),
        ({"metadata": "x"}, "metadata"),
        ({"metadata.n": "\0"}, "metadata.n"),
        ({f"metadata.{'k' * 65}": "x"}, f"metadata.{'k' * 65}"),
        ({"created_from": "today"}, "created_from"),
        ({"reference": "x"}, "reference"),
    ],
)
async def test_what_a_list_does_not_know_is_refused(
    database: str, query: dict[str, Any], pointer: str
) -> None:
    async with read_api(database) as api:
        answer = await api.get("/v1/wallet", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"#query/{pointer}"]
