"""Statements over HTTP: complete, of one history, and noticeably incomplete if they break."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from projections import statements
from projections.statements import Statements
from runtime.postgres.reads import ReadUnavailable
from serve_app.http.problems import ProblemError
from serve_app.routes import statements as route
from tests.support.histories import write_history
from tests.support.read_side import read_api
from tests.support.waiting import until
from tests.support.write_side import debit, running_shard
from wallet.ids import WalletId
from wallet.statement import BrokenStatement

CSV = {"Accept": "text/csv"}


async def get(api: httpx.AsyncClient, wallet: WalletId, **query: Any) -> Any:
    answer = await api.get(f"/v1/wallet/{wallet}/statement", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def journal(api: httpx.AsyncClient, wallet: WalletId) -> list[Any]:
    return list((await api.get(f"/v1/wallet/{wallet}/events?limit=200")).json()["items"])


def rows_of(answer: httpx.Response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.text, newline=""), strict=True))


@pytest.mark.parametrize("page", [1, 4, 500])
async def test_a_statement_is_the_journal_between_two_times(
    database: str, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(statements, "PAGE_EVENTS", page)
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        await write_history(shard, wallet)
        events = await journal(api, wallet)
        times = [item["event"]["time"] for item in events]
        for first in range(len(events)):
            for last in range(first, len(events)):
                found = await get(api, wallet, **{"from": times[first], "to": times[last]})
                inside = events[first:last]
                moving = [item for item in inside if "transfer" in item["event"]["type"]]
                assert [one["version"] for one in found["entries"]] == [
                    item["wallet"]["version"] for item in moving
                ]
                assert found["entry_count"] == len(moving)
                before = events[first - 1]["wallet"] if first else found["opening"]
                assert (found["opening"], found["opening"]["version"]) == (before, first)
                after = events[last - 1]["wallet"] if last else found["closing"]
                assert found["closing"] == after
                changed = sum(Decimal(one["balance_change"]) for one in found["entries"])
                opened, closed = found["opening"]["balance"], found["closing"]["balance"]
                assert Decimal(opened) + changed == Decimal(closed)


async def test_entries_are_what_the_journal_says_of_transfers(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        await write_history(shard, wallet)
        whole = await get(api, wallet)
        events = [
            item["event"]
            for item in await journal(api, wallet)
            if "transfer" in item["event"]["type"]
        ]
    assert (whole["from"], whole["to"]) == (None, None)
    for entry, event in zip(whole["entries"], events, strict=True):
        data = event["data"]
        for name in ("type", "effect", "amount", "reference_id"):
            assert entry[name] == data[name]
        for name in ("version", "balance", "pending_credit", "pending_debit"):
            assert entry[name] == data["wallet"][name]
        assert (entry["event"], entry["time"]) == (event["type"], event["time"])
        assert entry["transfer_id"] == data["id"]


async def test_csv_has_what_json_has(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        await write_history(shard, wallet)
        await shard.request(wallet, debit("1", reference_id='=HYPERLINK("x")'))
        whole = await get(api, wallet)
        answer = await api.get(f"/v1/wallet/{wallet}/statement", headers=CSV)
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert f'filename="statement-{wallet}.csv"' in answer.headers["content-disposition"]
    opening, *entries, closing = rows_of(answer)
    assert (opening["row"], closing["row"]) == ("opening", "closing")
    assert closing["balance"] == whole["closing"]["balance"]
    assert entries[-1]["reference_id"] == '\'=HYPERLINK("x")'
    for row, entry in zip(entries[:-1], whole["entries"], strict=False):
        assert row["row"] == "entry"
        assert {name: row[name] for name in entry} == {
            name: "" if value is None else str(value) for name, value in entry.items()
        }


async def test_an_empty_statement_has_both_balances(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        await shard.request(wallet, debit("7"))
        before = await get(api, wallet, to="2020-01-01T00:00:00Z")
        after = await get(api, wallet, **{"from": "2999-01-01T00:00:00Z"})
    assert before["opening"] == before["closing"]
    assert (before["closing"]["version"], before["closing"]["balance"]) == (0, "0.00")
    assert after["opening"] == after["closing"]
    assert (after["opening"]["version"], after["opening"]["balance"]) == (2, "7.00")
    assert before["entries"] == after["entries"] == []


async def test_what_is_written_meanwhile_is_not_in_the_statement(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "PAGE_EVENTS", 3)  # The last page is not full.
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        for _ in range(9):
            await shard.request(wallet, debit("1"))
        rows = Statements.pages

        async def slowly(*arguments: Any) -> AsyncIterator[Any]:
            async for page in rows(*arguments):
                await shard.request(wallet, debit("1"))
                yield page

        monkeypatch.setattr(Statements, "pages", slowly)
        found = await get(api, wallet)
    assert (found["entry_count"], found["closing"]["balance"]) == (9, "9.00")


async def break_after(monkeypatch: pytest.MonkeyPatch, pages: int, error: Exception | None) -> None:
    """Statements fail after some pages; without an error an event is missing."""
    rows = Statements.pages

    async def broken(*arguments: Any) -> AsyncIterator[Any]:
        number = 0
        async for page in rows(*arguments):
            number += 1
            if number > pages:
                if error is not None:
                    raise error
                yield page[1:]
                continue
            yield page

    monkeypatch.setattr(Statements, "pages", broken)


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
@pytest.mark.parametrize("error", [ReadUnavailable("gone"), None])
async def test_a_statement_that_breaks_has_no_end(
    database: str, monkeypatch: pytest.MonkeyPatch, accept: str, error: Exception | None
) -> None:
    monkeypatch.setattr(statements, "PAGE_EVENTS", 2)
    await break_after(monkeypatch, 2, error)
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        for _ in range(9):
            await shard.request(wallet, debit("1"))
        # The transport of tests raises what breaks a connection.
        with pytest.raises((ReadUnavailable, BrokenStatement)):
            await api.get(f"/v1/wallet/{wallet}/statement", headers={"Accept": accept})
    assert route._running == set()


async def test_a_statement_that_can_t_begin_is_a_problem(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await break_after(monkeypatch, 0, ReadUnavailable("gone"))
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        answer = await api.get(f"/v1/wallet/{wallet}/statement")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert route._running == set()


async def test_more_statements_than_allowed_are_rejected(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, go_on = Statements.pages, asyncio.Event()

    async def waiting(*arguments: Any) -> AsyncIterator[Any]:
        async for page in rows(*arguments):
            yield page
            await go_on.wait()

    monkeypatch.setattr(Statements, "pages", waiting)
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        path = f"/v1/wallet/{wallet}/statement"
        running = [asyncio.create_task(api.get(path)) for _ in range(4)]
        await until(lambda: len(route._running) == 4)
        refused = await api.get(path)
        go_on.set()
        answers = await asyncio.gather(*running)
        again = await api.get(path)
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert {one.status_code for one in (*answers, again)} == {200}


async def test_head_says_what_get_would_without_reading(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        head = await api.head(f"/v1/wallet/{wallet}/statement", headers=CSV)
        answer = await api.get(f"/v1/wallet/{wallet}/statement", headers=CSV)
    assert (head.status_code, head.content) == (200, b"")
    drop = {"x-request-id", "content-length"}
    assert {k: v for k, v in head.headers.items() if k not in drop} == {
        k: v for k, v in answer.headers.items() if k not in drop
    }
    assert head.headers["vary"] == "Accept"


async def test_what_a_statement_does_not_know_is_refused(database: str) -> None:
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        path = f"/v1/wallet/{wallet}/statement"
        for query, pointer in (
            ("from=x", "from"),
            ("to=2026-01-01", "to"),
            ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
            ("since=2026-01-02T00:00:00Z", "since"),
            ("limit=5", "limit"),
        ):
            answer = await api.get(f"{path}?{query}")
            assert answer.status_code == 422
            assert [one["pointer"] for one in answer.json()["errors"]] == [f"#query/{pointer}"]
        html = await api.get(path, headers={"Accept": "text/html"})
        assert (html.status_code, html.json()["code"]) == (406, "not_acceptable")
        behind = await api.get(f"{path}?min_version=2")
        assert (behind.status_code, behind.json()["code"]) == (409, "version_not_reached")
        nobody = await api.get(f"/v1/wallet/{wallet[:-4]}ffff/statement")
        assert (nobody.status_code, nobody.json()["code"]) == (404, "wallet_not_found")


async def test_a_statement_pays_for_its_pages_and_ends_with_its_key(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "PAGE_EVENTS", 2)
    paid: list[int] = []

    async def pay(_request: Request, count: int, *, wait_max_s: float) -> None:
        assert wait_max_s > 0
        paid.append(count)
        if len(paid) > 5:
            raise ProblemError("key_invalid", "This key was revoked.")

    monkeypatch.setattr(route, "continue_stream", pay)
    async with running_shard(database) as shard, read_api(database) as api:
        wallet = await shard.create_wallet()
        for _ in range(8):
            await shard.request(wallet, debit("1"))
        assert (await get(api, wallet))["entry_count"] == 8
        assert paid == [1] * 5
        with pytest.raises(ProblemError, match="revoked"):
            await api.get(f"/v1/wallet/{wallet}/statement")
    assert route._running == set()
