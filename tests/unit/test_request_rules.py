"""On every route: input that could change the request's meaning is never ignored."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.routing import Mount, Route

from projections.transfer_list import TransferPageView
from runtime.settings import Settings
from serve_app.app import create_app, create_application
from serve_app.dependencies import Dependencies
from serve_app.http.models import Component
from serve_app.openapi import document
from serve_app.openapi.route_spec import RouteSpec
from tests.support.domain import WALLET_ID

NOT_OURS = {"/docs", "/docs/assets", "/docs/oauth2-redirect", "/openapi.json", "/openapi-3.0.json"}
"""Pages and files for browsers, which add parameters of their own. They move nothing and say the
same to everybody."""

READS = [route for route in document.ROUTES if route.method == "GET"]
WRITES = [route for route in document.ROUTES if route.method != "GET"]


def make_id(parameter: RouteSpec | str) -> str:
    return parameter if isinstance(parameter, str) else f"{parameter.method} {parameter.path}"


def path_of(route: RouteSpec) -> str:
    path = route.path.replace("{code}", "overloaded")
    return path.replace("{wallet_id}", WALLET_ID).replace("{transfer_id}", WALLET_ID)


class NothingBehind:
    """Queries and dispatcher of a service that lets a request pass and finds nothing."""

    async def wallet(self, *_: object, **__: object) -> None:
        return None

    wallet_by_reference = transfer = wallet

    async def is_forked(self, *_: object, **__: object) -> bool:
        return False

    async def transfers(self, *_: object, **__: object) -> TransferPageView:
        return TransferPageView(items=[], next_cursor=None, wallet_version=1)


async def _ready() -> Component:
    return Component(ready=True, detail="")


_SERVICES: Any = Dependencies(
    settings=Settings(_env_file=None),
    dispatcher=None,  # type: ignore[arg-type]  # nothing of this may reach it
    queries=NothingBehind(),  # type: ignore[arg-type]  # has what is called of it
    probes={"postgres": _ready},
)
WAYS: dict[str, Any] = {
    "the table in front": create_application(_SERVICES),
    "FastAPI": create_app(_SERVICES),
}


@pytest.fixture(params=WAYS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=WAYS[request.param], raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


def pointers(answer: httpx.Response) -> list[str]:
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error"), answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return [error["pointer"] for error in answer.json()["errors"]]


def test_every_route_of_the_service_is_held_to_the_rules_or_named_here() -> None:
    ours = {route.path for route in document.ROUTES}
    found = {
        route.path
        for route in create_app().router.routes
        if isinstance(route, Route | Mount) or hasattr(route, "path")
    }

    assert found - ours == NOT_OURS


# -- the query ---------------------------------------------------------------------------------


@pytest.mark.parametrize("route", document.ROUTES, ids=make_id)
@pytest.mark.parametrize("query", ["dry_run=true", "atomic=true", "unheard_of", "=1", "Limit=1"])
async def test_a_parameter_that_the_route_does_not_have_is_refused(
    client: httpx.AsyncClient, route: RouteSpec, query: str
) -> None:
    for method in route.methods:
        answer = await client.request(method, f"{path_of(route)}?{query}", json={})
        if method == "HEAD":
            assert (answer.status_code, answer.content) == (422, b"")
            continue
        assert f"#query/{query.partition('=')[0]}" in pointers(answer)


@pytest.mark.parametrize(
    ("route", "name"),
    [(route, name) for route in document.ROUTES for name in sorted(route.allowed.query)],
    ids=make_id,
)
async def test_a_parameter_that_comes_twice_is_refused(
    client: httpx.AsyncClient, route: RouteSpec, name: str
) -> None:
    for value in ("1", "postgres"):
        answer = await client.get(f"{path_of(route)}?{name}={value}&{name}={value}")
        assert pointers(answer) == [f"#query/{name}"]


@pytest.mark.parametrize(
    ("route", "name"),
    [
        (route, one["name"])
        for route in document.ROUTES
        for one in route.parameters
        if one["schema"].get("type") == "integer"
    ],
    ids=make_id,
)
@pytest.mark.parametrize(
    "sent",
    ["1_0", "%2B10", "+10", "10.0", "-1", "1e1", "0x10", "%201", "1%20", "%D9%A1", "", "ten"],
)
async def test_a_number_is_plain_digits(
    client: httpx.AsyncClient, route: RouteSpec, name: str, sent: str
) -> None:
    rest = "&reference_id=x" if route.path == "/v1/wallet" else ""

    answer = await client.get(f"{path_of(route)}?{name}={sent}{rest}")

    assert pointers(answer) == [f"#query/{name}"]


async def test_every_documented_parameter_is_taken(client: httpx.AsyncClient) -> None:
    for query in ("min_version=1&consistency=strong&limit=10&status=failed&type=debit", ""):
        answer = await client.get(f"/v1/wallet/{WALLET_ID}/transfers?{query}")
        assert answer.status_code == 200, answer.text
    for path in (
        f"/v1/wallet/{WALLET_ID}?min_version=1&consistency=eventual",
        f"/v1/wallet/{WALLET_ID}/transfers/{WALLET_ID}?min_version=1&consistency=strong",
    ):
        assert (await client.get(path)).status_code == 404
    assert (await client.get("/v1/wallet?reference_id=a%20b&min_version=1")).json() == {
        "items": [],
        "next_cursor": None,
    }
    assert (await client.get("/readyz?only=postgres")).status_code == 200


async def test_a_query_that_is_no_text_is_refused_and_not_replaced(
    client: httpx.AsyncClient,
) -> None:
    assert pointers(await client.get("/v1/wallet?reference_id=%ff")) == ["#query"]


# -- headers -----------------------------------------------------------------------------------

SINGLE = {"Idempotency-Key": "k-1", "X-Request-Timeout-Ms": "1000", "Content-Type": "text/plain"}


@pytest.mark.parametrize("route", WRITES, ids=make_id)
@pytest.mark.parametrize("name", SINGLE)
async def test_a_header_that_means_one_thing_comes_once(
    client: httpx.AsyncClient, route: RouteSpec, name: str
) -> None:
    headers = [(name, SINGLE[name]), ("Accept", "*/*"), (name.lower(), SINGLE[name])]

    answer = await client.request(route.method, path_of(route), headers=headers, content=b"{}")

    assert pointers(answer) == [f"#header/{name}"]


@pytest.mark.parametrize("route", WRITES, ids=make_id)
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "x"])
async def test_a_body_that_is_encoded_is_refused(
    client: httpx.AsyncClient, route: RouteSpec, encoding: str
) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}

    answer = await client.request(route.method, path_of(route), headers=headers, content=b"\x1f")

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content_encoding")
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_a_body_that_is_said_to_be_as_it_is_is_read(
    client: httpx.AsyncClient, encoding: str
) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}

    answer = await client.post("/v1/wallet", headers=headers, content=b"[]")

    assert pointers(answer) == [""]


@pytest.mark.parametrize(
    ("route", "name"),
    [
        pytest.param(route, name, id=f"{name}-{make_id(route)}")
        for route in WRITES
        for name in ("If-Match", "If-None-Match", "If-Unmodified-Since")
        if name not in {parameter["name"] for parameter in route.parameters}
    ],
)
async def test_a_precondition_of_a_write_is_refused_and_not_ignored(
    client: httpx.AsyncClient, route: RouteSpec, name: str
) -> None:
    answer = await client.request(route.method, path_of(route), headers={name: '"41"'}, json={})

    assert pointers(answer) == [f"#header/{name}"]


@pytest.mark.parametrize("route", READS, ids=make_id)
async def test_a_read_refuses_the_precondition_that_it_does_not_check(
    client: httpx.AsyncClient, route: RouteSpec
) -> None:
    answer = await client.get(path_of(route), headers={"If-Match": '"41"'})

    assert pointers(answer) == ["#header/If-Match"]


# -- HEAD --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [*(path_of(route) for route in READS), "/docs", "/openapi.json", "/nowhere"]
)
async def test_head_is_get_without_the_body(client: httpx.AsyncClient, path: str) -> None:
    query = "?reference_id=x" if path == "/v1/wallet" else ""

    answers = [await client.request(method, path + query) for method in ("GET", "HEAD")]

    got, head = answers
    assert (head.status_code, head.content) == (got.status_code, b"")
    for answer in answers:
        for name in ("x-request-id", "content-length"):
            answer.headers.pop(name, None)
    assert head.headers == got.headers


async def test_a_head_s_answer_has_no_body_even_where_the_server_would_send_one() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "HEAD",
        "path": "/problems",
        "query_string": b"",
        "headers": [],
    }
    await WAYS["the table in front"](scope, receive, send)

    assert sent[0]["status"] == 200
    assert int(dict(sent[0]["headers"])[b"content-length"]) > 0
    assert [message["body"] for message in sent[1:]] == [b""]


async def test_a_wrong_method_gets_head_as_well(client: httpx.AsyncClient) -> None:
    answer = await client.put(f"/v1/wallet/{WALLET_ID}")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, PATCH"
