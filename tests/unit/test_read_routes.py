"""Reads while the projection lags: never older than what the client has seen."""

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from projections import queries
from projections.queries import Queries
from runtime.settings import Settings
from serve_app.app import create_application
from serve_app.dependencies import Dependencies
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID

PROJECTED, WRITTEN = 39, 41
PATH = f"/v1/wallet/{WALLET_ID}"

_WALLET = {
    "id": WALLET_ID,
    "reference_id": "shop-1",
    "currency": "USD",
    "scale": 2,
    "status": "active",
    "balance": "0",
    "pending_debit": "0",
    "pending_credit": "0",
    "metadata": None,
    "created_at": datetime(2026, 1, 2, tzinfo=UTC),
    "updated_at": datetime(2026, 1, 2, tzinfo=UTC),
    "overdraft_limit": "0",
    "frozen": None,
    "frozen_reason": None,
}
_TRANSFER = _WALLET | {
    "type": "debit",
    "amount": "1",
    "failure_reason": None,
    "settled_at": datetime(2026, 1, 2, tzinfo=UTC),
    "expires_at": None,
    "on_expiry": None,
    "refunds": None,
    "refunded_amount": None,
    "refund_pending_amount": None,
    "completed_amount": None,
    "created_version": 2,
}


class PoolBehind:
    """A pool whose projections are at one version, and the write side's rows at a later one."""

    def __init__(self, forked: Collection[str] = ()) -> None:
        self._forked = forked

    async def fetchrow(self, sql: str, *_: object) -> dict[str, Any]:
        return _TRANSFER | {"version": PROJECTED if "wallet_projections" in sql else WRITTEN}

    async def fetch(self, sql: str, *arguments: object) -> list[Any]:
        if sql == queries._FORKED:
            return [(wallet_id,) for wallet_id in self._forked]
        return [await self.fetchrow(sql, *arguments)]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(PoolBehind()) as client:
        yield client


def client_of(pool: PoolBehind) -> httpx.AsyncClient:
    services: Any = Dependencies(
        settings=Settings(_env_file=None),
        dispatcher=None,  # type: ignore[arg-type]  # not reached
        queries=Queries(pool, timeout_s=5.0),  # type: ignore[arg-type]  # has what is called of it
        probes={},
    )
    transport: Any = httpx.ASGITransport(app=create_application(services))
    return httpx.AsyncClient(transport=transport, base_url="http://service")


@pytest.mark.parametrize("path", ["", "/transfers", f"/transfers/{WALLET_ID}"])
async def test_every_read_says_that_a_wallet_s_history_has_forked(path: str) -> None:
    for forked, header in (([WALLET_ID], "forked"), ([OTHER_WALLET_ID], None)):
        async with client_of(PoolBehind(forked)) as client:
            answer = await client.get(f"/v1/wallet/{WALLET_ID}{path}")
            assert (answer.status_code, answer.headers.get("Wallet-History")) == (200, header)


class EmptyPool(PoolBehind):
    """A pool whose tables have nothing but one wallet in quarantine, which is lost."""

    async def fetchrow(self, sql: str, *_: object) -> Any:
        return () if sql == queries._IS_FORKED else None

    async def fetch(self, sql: str, *_: object) -> list[Any]:
        return [(WALLET_ID,)] if sql == queries._FORKED else []


@pytest.mark.parametrize(
    "path",
    [
        *("", "/transfers", f"/transfers/{WALLET_ID}", "/events", "?version=2"),
        "?at=2026-01-02T03:04:05Z",
    ],
)
async def test_what_the_journal_lost_is_not_said_to_be_absent(path: str) -> None:
    async with client_of(EmptyPool()) as client:
        answer = await client.get(f"/v1/wallet/{WALLET_ID}{path}")
    assert (answer.status_code, answer.json()["code"]) == (503, "history_forked")


@pytest.mark.parametrize(
    ("sent", "status", "version"),
    [
        ([], 200, PROJECTED),
        (['"41"'], 304, WRITTEN),
        (['W/"41"'], 304, WRITTEN),
        (['"39"'], 304, PROJECTED),
        (['"39", "40"'], 200, WRITTEN),
        (['"39"', '"41"'], 304, WRITTEN),
        (['"40"'], 200, WRITTEN),
        (['"12"'], 200, PROJECTED),
        (['"99"'], 200, WRITTEN),
        (['"x", 41'], 200, PROJECTED),
        (['"' + "9" * 100 + '"'], 200, PROJECTED),
        (["*"], 304, PROJECTED),
    ],
)
async def test_an_etag_that_a_client_has_is_a_version_that_it_has_seen(
    client: httpx.AsyncClient, sent: list[str], status: int, version: int
) -> None:
    answer = await client.get(PATH, headers=[("If-None-Match", one) for one in sent])

    assert (answer.status_code, answer.headers["etag"]) == (status, f'"{version}"')
    assert answer.headers["cache-control"] == "no-cache"
    assert status == 304 or answer.json()["version"] == version


@pytest.mark.parametrize(
    ("path", "version_in"),
    [
        (PATH, lambda body: body["version"]),
        ("/v1/wallet?reference_id=shop-1", lambda body: body["items"][0]["version"]),
        (f"{PATH}/transfers", lambda body: body["wallet_version"]),
        (f"{PATH}/transfers/{WALLET_ID}", None),
    ],
)
async def test_every_read_takes_a_least_version_and_strong(
    client: httpx.AsyncClient, path: str, version_in: Any
) -> None:
    query = "&" if "?" in path else "?"
    for asked, version in (
        ("", PROJECTED),
        ("min_version=39", PROJECTED),
        ("min_version=40", WRITTEN),
        ("min_version=41", WRITTEN),
        ("consistency=eventual", PROJECTED),
        ("consistency=strong", WRITTEN),
        ("consistency=strong&min_version=41", WRITTEN),
    ):
        answer = await client.get(f"{path}{query}{asked}" if asked else path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-cache"
        assert version_in is None or version_in(answer.json()) == version
    for asked in ("min_version=42", "min_version=42&consistency=strong"):
        answer = await client.get(f"{path}{query}{asked}")
        assert (answer.status_code, answer.json()["code"]) == (409, "version_not_reached")
        assert "version 41" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("/events?after_version=-1", "after_version"),
        ("/events?after_version=1.0", "after_version"),
        ("/events?before_version=0", "before_version"),
        ("/events?order=newest", "order"),
        ("/events?limit=0", "limit"),
        ("/events?limit=201", "limit"),
        ("/events?cursor=AAAAAAAAAAI", "cursor"),
        ("?version=0", "version"),
        ("?version=9223372036854775808", "version"),
        ("?at=yesterday", "at"),
        ("?at=2026-01-02T03:04:05+01:00", "at"),
        ("?at=2026-01-02T03:04:05Z&version=1", "at"),
        ("?as_of=2026-01-02T03:04:05Z", "as_of"),
    ],
)
async def test_what_a_look_back_does_not_know_is_refused(
    client: httpx.AsyncClient, query: str, pointer: str
) -> None:
    answer = await client.get(PATH + query)

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"#query/{pointer}"]
