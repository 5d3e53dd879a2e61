"""Pages of the journal over HTTP: what consumers got, in order, without gaps."""

from itertools import pairwise
from typing import Any

import httpx
import nats
import pytest

from tests.support.histories import API_KEY, write_history
from tests.support.published import STREAM, wait_for_messages
from tests.support.read_side import read_api
from tests.support.write_side import debit, running_shard
from wallet.ids import WalletId

EVENTS = 12


async def published(nats_url: str) -> list[bytes]:
    await wait_for_messages(nats_url, EVENTS)
    client = await nats.connect(nats_url)
    try:
        jetstream = client.jetstream()
        messages = [await jetstream.get_msg(STREAM, number + 1) for number in range(EVENTS)]
        return [message.data or b"" for message in messages]
    finally:
        await client.close()


async def pages(api: httpx.AsyncClient, wallet: WalletId, **query: Any) -> list[Any]:
    """All pages, each from where the one before ended."""
    found = []
    bound = "before_version" if query.get("order") == "desc" else "after_version"
    while True:
        answer = await api.get(f"/v1/wallet/{wallet}/events", params=query)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        if found[-1]["next_version"] is None:
            return found
        query[bound] = found[-1]["next_version"]


def versions(items: list[Any]) -> list[int]:
    return [item["wallet"]["version"] for item in items]


async def test_a_page_has_the_bytes_that_were_published(database: str, nats_url: str) -> None:
    async with running_shard(database, nats_url) as shard, read_api(database) as api:
        wallet = await shard.create_wallet(reference_id="shop-1", metadata={"a": "1"})
        written = await write_history(shard, wallet)
        messages = await published(nats_url)
        answer = await api.get(f"/v1/wallet/{wallet}/events")

    assert len(messages) == EVENTS
    for message in messages:
        assert message in answer.content
    items = answer.json()["items"]
    assert [item["event"]["data"] for item in items[1:]] == written
    assert [item["made_by"] for item in items] == [None, *[API_KEY] * (EVENTS - 1)]
    assert answer.json()["wallet_version"] == EVENTS
    for item, response in zip(items[1:], written, strict=True):
        after = response.get("wallet", response)
        assert item["wallet"] == {name: after[name] for name in item["wallet"]}


async def test_pages_hold_every_event_once_in_either_order(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        await write_history(shard, wallet)
        all_versions = list(range(1, EVENTS + 1))
        for limit in (1, 5, EVENTS - 1, EVENTS, EVENTS + 1, 200):
            for order, expected in (("asc", all_versions), ("desc", all_versions[::-1])):
                found = await pages(api, wallet, limit=limit, order=order)
                assert versions([item for page in found for item in page["items"]]) == expected
                assert all(len(page["items"]) == limit for page in found[:-1])
        items = (await pages(api, wallet))[0]["items"]
        for before, after in pairwise(items):
            assert after["event"]["previoushash"] == before["event"]["hash"]


@pytest.mark.parametrize(
    ("query", "expected", "next_version"),
    [
        ({"after_version": 3, "before_version": 6}, [4, 5], None),
        ({"after_version": 3, "limit": 2}, [4, 5], 5),
        ({"before_version": 4, "order": "desc", "limit": 2}, [3, 2], 2),
        ({"before_version": 4, "order": "desc", "limit": 3}, [3, 2, 1], None),
        ({"after_version": EVENTS}, [], None),
        ({"after_version": 2**63 - 1}, [], None),
        ({"before_version": 2**63 - 1, "after_version": 10}, [11, 12], None),
        ({"before_version": 1}, [], None),
        ({"after_version": 8, "before_version": 2}, [], None),
    ],
)
async def test_bounds_are_exclusive(
    database: str, query: dict[str, Any], expected: list[int], next_version: int | None
) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        await write_history(shard, wallet)
        page = (await api.get(f"/v1/wallet/{wallet}/events", params=query)).json()
    assert (versions(page["items"]), page["next_version"]) == (expected, next_version)
    assert page["wallet_version"] == EVENTS


async def test_a_written_event_is_in_the_next_page(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        for version in range(2, 8):
            await shard.request(wallet, debit("1"))
            query = {"after_version": version - 1, "min_version": version}
            answer = await api.get(f"/v1/wallet/{wallet}/events", params=query)
            assert versions(answer.json()["items"]) == [version]
        behind = await api.get(f"/v1/wallet/{wallet}/events", params={"min_version": 8})
        assert (behind.status_code, behind.json()["code"]) == (409, "version_not_reached")
