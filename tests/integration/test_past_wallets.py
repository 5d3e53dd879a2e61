"""A wallet at a version is the fold of its events up to it; at a time, at the version then."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from actors.journal.postgres_reader import JournalRange, JournalReader
from tests.support.histories import write_history
from tests.support.read_side import queries_on, read_api
from tests.support.write_side import ShardUnderTest, credit, debit, running_shard
from wallet.commands import UpdateWallet
from wallet.fold import evolve
from wallet.ids import WalletId
from wallet.representation import ENCODER, wallet_view
from wallet.state import Wallet


async def folded(database: str, wallet_id: WalletId) -> list[Wallet]:
    """The wallet after each of its events, computed from the events alone."""
    async with queries_on(database) as queries:
        page = await JournalReader(queries.reads).events(wallet_id, JournalRange(), limit=1_000)
    assert page is not None
    states: list[Wallet] = []
    for recorded in page.events:
        states.append(evolve(states[-1] if states else None, recorded.event))
    return states


async def write_at_random(shard: ShardUnderTest, wallet: WalletId, seed: int) -> None:
    chosen = random.Random(seed)
    for number in range(25):
        kind = chosen.choice(["one", "several", "metadata", "limit"])
        if kind == "metadata":
            command = UpdateWallet(metadata={chosen.choice("abc"): str(number)})
        elif kind == "limit":
            command = UpdateWallet(overdraft_limit=str(chosen.randrange(100, 200)))
        if kind in ("metadata", "limit"):
            await shard.request(wallet, command, key=str(number))
        else:
            amounts = [str(chosen.randrange(1, 9)) for _ in range(3 if kind == "several" else 1)]
            makes = [chosen.choice([debit, credit])(amount) for amount in amounts]
            await shard.request(wallet, *makes)


async def read(api: httpx.AsyncClient, wallet: WalletId, **query: Any) -> httpx.Response:
    return await api.get(f"/v1/wallet/{wallet}", params=query)


@pytest.mark.parametrize("seed", range(4))
async def test_a_version_is_the_fold_of_the_events_up_to_it(database: str, seed: int) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet(metadata={"a": "0"}, overdraft_limit="100")
        await write_at_random(shard, wallet, seed)
        states = await folded(database, wallet)
        assert len(states) > 25
        for version, state in enumerate(states, 1):
            answer = await read(api, wallet, version=version)
            assert (answer.status_code, answer.headers["etag"]) == (200, f'"{version}"')
            assert answer.content == ENCODER.encode(wallet_view(state))
        now = await read(api, wallet, consistency="strong")
    assert now.content == answer.content


async def test_what_was_changed_later_does_not_show(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet(reference_id="shop-1", metadata={"a": "1"})
        written = await write_history(shard, wallet)
        for response in written:
            after = response.get("wallet", response)
            found = (await read(api, wallet, version=after["version"])).json()
            assert {name: found[name] for name in after if name != "reason"} == {
                name: value for name, value in after.items() if name != "reason"
            }


async def times_of(database: str, wallet: WalletId) -> list[datetime]:
    plain = await asyncpg.connect(database)
    try:
        sql = "SELECT occurred_at FROM wallet_events WHERE wallet_id = $1 ORDER BY version"
        return [row[0] for row in await plain.fetch(sql, wallet)]
    finally:
        await plain.close()


async def move_events(database: str, wallet: WalletId, times: list[int]) -> None:
    """Give the events of a wallet these times, in seconds after 2026."""
    plain = await asyncpg.connect(database)
    try:
        for version, seconds in enumerate(times, 1):
            await plain.execute(
                "UPDATE wallet_events SET occurred_at = $3 WHERE wallet_id = $1 AND version = $2",
                *(wallet, version, START + timedelta(seconds=seconds)),
            )
    finally:
        await plain.close()


START = datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_time_is_the_version_of_its_last_event(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        await write_at_random(shard, wallet, seed=7)
        times = await times_of(database, wallet)
        moments = {moment + timedelta(microseconds=by) for moment in times for by in (-1, 0, 1)}
        for moment in sorted(moments):
            expected = sum(time <= moment for time in times)
            answer = await read(api, wallet, at=moment.isoformat())
            if expected == 0:
                assert (answer.status_code, answer.json()["code"]) == (404, "wallet_not_found")
                assert times[0].isoformat() in answer.json()["detail"]
            else:
                assert answer.headers["etag"] == f'"{expected}"'
                assert answer.content == (await read(api, wallet, version=expected)).content
        for late in ("9999-12-31T23:59:59Z", "2999-01-01T00:00:00-13:00"):
            assert (await read(api, wallet, at=late)).headers["etag"] == f'"{len(times)}"'


async def test_a_clock_that_went_back_leaves_an_answer_at_a_border(database: str) -> None:
    times = [10, 20, 30, 28, 26, 40, 35, 50, 50, 45, 60]
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        for _ in times[1:]:
            await shard.request(wallet, debit("1"))
        await move_events(database, wallet, times)
        for seconds in range(10, 65):
            moment = START + timedelta(seconds=seconds)
            version = int((await read(api, wallet, at=moment.isoformat())).headers["etag"][1:-1])
            assert times[version - 1] <= seconds
            assert version == len(times) or times[version] > seconds


async def test_a_version_that_was_not_reached_is_refused(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        later = await read(api, wallet, version=2)
        assert (later.status_code, later.json()["code"]) == (409, "version_not_reached")
        behind = await read(api, wallet, version=1, min_version=2)
        assert (behind.status_code, behind.json()["code"]) == (409, "version_not_reached")
        both = await read(api, wallet, version=1, at="2026-01-01T00:00:00Z")
        assert (both.status_code, both.json()["errors"][0]["pointer"]) == (422, "#query/at")


async def test_a_past_wallet_has_an_etag_of_its_own(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        await shard.request(wallet, debit("1"))
        path = f"/v1/wallet/{wallet}?version=1"
        for sent, status in (('"1"', 304), ('W/"1"', 304), ('"2"', 200), ("*", 304)):
            answer = await api.get(path, headers={"If-None-Match": sent})
            assert (answer.status_code, answer.headers["etag"]) == (status, '"1"')
        head = await api.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", '"1"')
