"""Every API route requires a key, in whatever way it is called; other routes don't."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog
from starlette.requests import Request
from starlette.responses import Response

from runtime.settings import Settings
from serve_app.app import create_app, create_application
from serve_app.asgi import endpoint
from serve_app.asgi.endpoint import as_asgi
from serve_app.dependencies import Dependencies
from serve_app.openapi import document
from serve_app.openapi.route_spec import RouteSpec
from tests.support.keys import AuthFixture, with_key

API = [route for route in document.ROUTES if route.path.startswith("/v1/")]
FOR_EVERYBODY = [
    *("/healthz", "/problems", "/problems/overloaded"),
    *("/openapi.json", "/openapi-3.0.json", "/docs"),
]


def make_id(route: RouteSpec) -> str:
    return f"{route.method} {route.path}"


def path_of(route: RouteSpec) -> str:
    some_id = "01a2067c-e291-71c5-b35b-2b30e09df98a"
    return route.path.replace("{wallet_id}", some_id).replace("{transfer_id}", some_id)


class Service:
    """The HTTP API with an authenticator and no backend: authenticated requests end as a 500."""

    def __init__(self) -> None:
        self.world = AuthFixture()
        services: Any = Dependencies(
            settings=Settings(auth="required"),
            dispatcher=None,  # type: ignore[arg-type]  # not reached
            queries=None,  # type: ignore[arg-type]  # not reached
            probes={},
            authenticator=self.world.authenticator,
        )
        self.ways: dict[str, Any] = {
            "the table in front": create_application(services),
            "FastAPI": create_app(services),
        }

    def client(self, way: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.ways[way], raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://service")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture(params=["the table in front", "FastAPI"])
async def client(service: Service, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    async with service.client(request.param) as client:
        yield client


@pytest.mark.parametrize("route", API, ids=make_id)
async def test_a_route_of_the_api_refuses_unauthenticated_clients(
    client: httpx.AsyncClient, route: RouteSpec
) -> None:
    answer = await client.request(route.method, path_of(route), json={})

    assert (answer.status_code, answer.json()["code"]) == (401, "key_required")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize("route", API, ids=make_id)
async def test_every_method_of_an_api_route_requires_a_key(
    client: httpx.AsyncClient, route: RouteSpec
) -> None:
    for method in route.methods:
        # Even an unknown method is reported only to authenticated clients.
        answer = await client.request(method, f"{path_of(route)}?unheard_of=1")
        assert answer.status_code == 401


@pytest.mark.parametrize("route", API, ids=make_id)
async def test_a_route_of_the_api_refuses_a_key_for_something_else(
    client: httpx.AsyncClient, service: Service, route: RouteSpec
) -> None:
    other = "wallets:write" if route.method == "GET" else "wallets:read"
    key = service.world.keys.make(other)

    answer = await client.request(
        route.method, path_of(route), headers={"Authorization": f"Bearer {key.text}"}
    )

    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


@pytest.mark.parametrize("path", FOR_EVERYBODY)
async def test_health_problems_and_the_description_are_for_everybody(
    client: httpx.AsyncClient, path: str
) -> None:
    assert (await client.get(path)).status_code == 200


async def test_readiness_shows_the_reason_to_admins_only(service: Service) -> None:
    from serve_app.http.models import Component

    async def probe() -> Component:
        return Component(ready=False, detail="no answer from 10.1.2.3")

    services = service.ways["FastAPI"].state.services
    services.probes["postgres"] = probe
    admin, other = service.world.keys.make("admin"), service.world.keys.make()
    async with service.client("the table in front") as client:
        asked = [
            await client.get("/readyz", headers={"Authorization": f"Bearer {key.text}"})
            for key in (admin, other)
        ]
        asked.append(await client.get("/readyz"))

    reported = [answer.json()["components"]["postgres"]["detail"] for answer in asked]
    assert reported == ["no answer from 10.1.2.3", "not ready", "not ready"]


def test_a_new_route_of_the_api_requires_a_key_by_default() -> None:
    assert {route.needs for route in API} == {"wallets:read", "wallets:write", "admin"}
    for route in API:
        default = "wallets:read" if route.method == "GET" else "wallets:write"
        assert route.needs == (route.scope or default)


async def test_an_overdraft_needs_an_admin(client: httpx.AsyncClient, service: Service) -> None:
    writer, admin = service.world.keys.make("wallets:write"), service.world.keys.make("admin")
    wallet = path_of(next(route for route in API if route.method == "PATCH"))
    for method, path in (("PATCH", wallet), ("POST", "/v1/wallet")):
        for key, body, status in (
            (writer, {"overdraft_limit": "1"}, 403),
            (
                writer,
                {"overdraft_limit": None} if method == "PATCH" else {"overdraft_limit": 0},
                403,
            ),
            (writer, {"metadata": {"a": "b"}}, 500),
            (admin, {"overdraft_limit": "1"}, 500),
        ):
            headers = {"Authorization": f"Bearer {key.text}"}
            answer = await client.request(method, path, json=body, headers=headers)
            assert answer.status_code == status, (method, body)
            if status == 403:
                assert answer.json()["code"] == "scope_missing"
                assert 'scope="admin"' in answer.headers["www-authenticate"]


def test_freezing_and_closing_need_an_admin() -> None:
    guarded = {route.path.rsplit("/", 1)[-1] for route in API if route.needs == "admin"}
    assert guarded == {"freeze", "unfreeze", "close"}


async def test_a_bug_is_logged_without_the_key(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A logger that was used before keeps its old output.
    monkeypatch.setattr(endpoint, "_log", structlog.get_logger())
    key = service.world.keys.make()

    async def broken(_request: Request) -> Response:
        raise RuntimeError("a bug")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = dict(with_key(key)) | {
        "method": "GET",
        "path": "/v1/wallet",
        "query_string": b"",
        "app": service.ways["FastAPI"],
    }
    with structlog.testing.capture_logs() as logged:
        await as_asgi(broken, "wallets:read")(scope, receive, send)

    assert sent[0]["status"] == 500
    assert logged
    assert key.text.rpartition("_")[2] not in repr(logged) + repr(sent)


def test_what_runs_without_keys_says_so_in_its_description() -> None:
    def described(**fields: Any) -> Any:
        services: Any = Dependencies(
            settings=Settings(),
            dispatcher=None,  # type: ignore[arg-type]  # not reached
            queries=None,  # type: ignore[arg-type]  # not reached
            probes={},
            **fields,
        )
        return create_app(services).openapi()

    off = described()
    assert "no API key is needed" in off["info"]["description"]
    assert "securitySchemes" not in off["components"]
    assert not [
        operation
        for methods in off["paths"].values()
        for operation in methods.values()
        if "security" in operation
    ]
    assert (
        "Warning: authentication is disabled"
        in described(is_exposed_unauthenticated=True)["info"]["description"]
    )
