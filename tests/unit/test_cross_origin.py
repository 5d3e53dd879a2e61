"""Pages of allowed origins may call the API from a browser, others may not."""

from typing import Any

import httpx
import pytest

from runtime.settings import Settings
from serve_app.app import create_application
from serve_app.asgi.cross_origin import origins_of
from serve_app.dependencies import Dependencies

SHOP = "https://shop.example"
PREFLIGHT = {
    "Origin": SHOP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
}


def client_of(origins: str) -> httpx.AsyncClient:
    services: Any = Dependencies(
        settings=Settings(_env_file=None, cors_origins=origins),
        dispatcher=None,  # type: ignore[arg-type]  # not reached
        queries=None,  # type: ignore[arg-type]  # not reached
        probes={},
    )
    transport: Any = httpx.ASGITransport(app=create_application(services))
    return httpx.AsyncClient(transport=transport, base_url="http://service")


async def test_an_allowed_page_may_send_keyed_writes_and_read_the_answer() -> None:
    async with client_of(f"{SHOP}/, https://other.example") as client:
        preflight = await client.options("/v1/wallet", headers=PREFLIGHT)
        answer = await client.get("/healthz", headers={"Origin": SHOP})

    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == SHOP
    assert "Idempotency-Key" in preflight.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origins", ["", "https://other.example"])
async def test_other_pages_may_not(origins: str) -> None:
    async with client_of(origins) as client:
        preflight = await client.options("/v1/wallet", headers=PREFLIGHT)
        answer = await client.get("/healthz", headers={"Origin": SHOP})

    assert preflight.status_code in (400, 405)
    assert "Access-Control-Allow-Origin" not in preflight.headers
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_unknown_routes_answer_allowed_pages_too() -> None:
    async with client_of(SHOP) as client:
        answer = await client.get("/v2", headers={"Origin": SHOP})

    assert answer.status_code == 404
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP


def test_origins_are_separated_by_commas() -> None:
    assert origins_of(" https://a.example/ ,https://b.example,") == [
        "https://a.example",
        "https://b.example",
    ]
