"""The front page and the problems: pages for browsers, JSON for programs."""

from typing import Any

import httpx
import pytest

from runtime.settings import Settings
from serve_app.app import create_application
from serve_app.dependencies import Dependencies
from serve_app.http.problems import PROBLEM_TYPES
from serve_app.routes.service import stream_server

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
NATS = "nats://wallet:secret@events.example:4333"


def client_of(authenticator: object = None) -> httpx.AsyncClient:
    services: Any = Dependencies(
        settings=Settings(_env_file=None, nats_url=NATS),
        dispatcher=None,  # type: ignore[arg-type]  # not reached
        queries=None,  # type: ignore[arg-type]  # not reached
        probes={},
        authenticator=authenticator,  # type: ignore[arg-type]  # only compared
    )
    transport: Any = httpx.ASGITransport(app=create_application(services))
    return httpx.AsyncClient(transport=transport, base_url="http://service")


async def test_the_front_page_leads_everywhere() -> None:
    async with client_of() as client:
        links = (await client.get("/")).json()
        page = await client.get("/", headers=BROWSER)

    assert links == {
        "docs": "/docs",
        "openapi": "/openapi.json",
        "openapi_3_0": "/openapi-3.0.json",
        "problems": "/problems",
        "health": "/healthz",
        "readiness": "/readyz",
        "stream": "WALLET_EVENTS",
        "stream_server": "nats://events.example:4333",
    }
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for link in links.values():
        assert link in page.text


async def test_addresses_are_not_told_where_keys_are_required() -> None:
    async with client_of(authenticator=object()) as client:
        links = (await client.get("/")).json()
        page = await client.get("/", headers=BROWSER)

    assert links["stream_server"] is None
    assert "events.example" not in page.text


async def test_the_list_of_problems_is_a_page_for_browsers() -> None:
    async with client_of() as client:
        listed = (await client.get("/problems")).json()
        page = await client.get("/problems", headers=BROWSER)

    assert [one["code"] for one in listed["items"]] == list(PROBLEM_TYPES)
    for code in PROBLEM_TYPES:
        assert f'href="/problems/{code}"' in page.text


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("tls://user:word@a.example,tls://b.example", "tls://a.example:4222"),
        ("nats://[::1]:4000", "nats://[::1]:4000"),
        ("", None),
        ("nats://a:port", None),
    ],
)
def test_the_stream_s_address_has_no_credentials(url: str, server: str | None) -> None:
    assert stream_server(url) == server


async def test_the_description_is_served_in_both_versions() -> None:
    async with client_of() as client:
        today = (await client.get("/openapi.json")).json()
        answer = await client.get("/openapi-3.0.json")
        head = await client.head("/openapi-3.0.json")

    assert answer.headers["content-type"] == "application/json"
    assert (today["openapi"], answer.json()["openapi"]) == ("3.1.0", "3.0.3")
    assert answer.json()["paths"].keys() == today["paths"].keys()
    assert head.status_code == 200
