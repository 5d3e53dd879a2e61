"""HTTP protocol errors: each is answered with a problem document."""

import json

import httpx
import pytest

from tests.e2e.api import Api, new_id
from tests.e2e.problems import assert_problem

_JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def wallet(api: Api) -> str:
    return api.new_wallet("10")


def _posts(wallet: str) -> list[str]:
    base = f"/v1/wallet/{wallet}/transfers"
    return [
        "/v1/wallet",
        f"{base}/debit",
        f"{base}/credit",
        f"{base}/{new_id()}/complete",
        f"{base}/{new_id()}/revert",
        f"{base}/batch",
        "/v1/transfers/batch",
    ]


@pytest.mark.parametrize("route", range(7))
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{]",
        b"{'metadata': {}}",
        b"nul",
        b"\xff\xfe{}",
        b" ",
    ],
    ids=str,
)
def test_what_is_not_json_is_refused_on_every_route(
    api: Api, wallet: str, route: int, body: bytes
) -> None:
    answer = api.http.post(_posts(wallet)[route], content=body, headers=_JSON)

    assert_problem(answer, 400, "malformed_json")


@pytest.mark.parametrize("route", range(7))
@pytest.mark.parametrize(
    "declared",
    ["text/plain", "application/x-www-form-urlencoded", "application/xml", "application/jsonp", ""],
)
def test_a_body_that_is_not_declared_as_json_is_refused(
    api: Api, wallet: str, route: int, declared: str
) -> None:
    path = _posts(wallet)[route]

    answer = api.http.post(path, content=b'{"amount":"1"}', headers={"Content-Type": declared})

    assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "declared", ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", None]
)
def test_json_may_be_declared_in_every_usual_way(
    api: Api, wallet: str, declared: str | None
) -> None:
    headers = {"Content-Type": declared} if declared else {}

    answer = api.http.post(
        f"/v1/wallet/{wallet}/transfers/debit", content=b'{"amount":"1"}', headers=headers
    )

    assert answer.status_code == 201


@pytest.mark.parametrize("route", range(7))
def test_a_body_that_is_too_large_is_refused(api: Api, wallet: str, route: int) -> None:
    most = 4_194_304 if "batch" in _posts(wallet)[route] else 65_536
    body = json.dumps({"amount": "1", "metadata": {"k": "v" * most}}).encode()

    answer = api.http.post(_posts(wallet)[route], content=body, headers=_JSON)

    problem = assert_problem(answer, 413, "body_too_large")
    assert str(most) in problem["detail"]


def test_a_body_of_unannounced_length_is_bounded_too(api: Api, wallet: str) -> None:
    def chunks() -> "object":
        yield b'{"amount": "1", "metadata": {"k": "'
        for _ in range(80):
            yield b"v" * 1024
        yield b'"}}'

    path = f"/v1/wallet/{wallet}/transfers/debit"

    answer = api.http.post(path, content=chunks(), headers=_JSON)  # type: ignore[arg-type]  # a generator of bytes

    assert_problem(answer, 413, "body_too_large")


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/wallets", "/v2/wallet", "/v1/wallet/", "/docs/x", "//", "/v1//wallet"]
)
def test_an_unknown_route_is_a_problem(api: Api, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        request = api.http.build_request(method, "/")
        answer = api.http.send(httpx.Request(method, request.url.copy_with(raw_path=path.encode())))
        assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/wallet", {"GET", "POST"}),
        ("/v1/wallet/{id}", {"GET", "PATCH"}),
        ("/v1/wallet/{id}/freeze", {"POST"}),
        ("/v1/wallet/{id}/unfreeze", {"POST"}),
        ("/v1/wallet/{id}/close", {"POST"}),
        ("/v1/wallet/{id}/transfers", {"GET"}),
        ("/v1/wallet/{id}/transfers/{id}", {"GET"}),
        ("/v1/wallet/{id}/transfers/debit", {"POST"}),
        ("/v1/wallet/{id}/transfers/{id}/complete", {"POST"}),
        ("/v1/transfers/batch", {"POST"}),
        ("/healthz", {"GET"}),
        ("/readyz", {"GET"}),
        ("/problems", {"GET"}),
        ("/problems/overloaded", {"GET"}),
    ],
)
def test_a_wrong_method_gets_the_allowed_methods(api: Api, path: str, allowed: set[str]) -> None:
    wrong = {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed
    if path.endswith("debit"):
        wrong.remove("GET")  # asks for a transfer of that name, which isn't found
    for method in wrong:
        answer = api.http.request(method, path.replace("{id}", new_id()))

        assert_problem(answer, 405, "method_not_allowed")
        reported = {one.strip() for one in answer.headers["allow"].split(",")}
        assert reported - {"HEAD", "OPTIONS"} == allowed, (method, path)


@pytest.mark.parametrize("sent", ["mine", "a" * 128, "order/7:1"])
def test_a_request_id_is_echoed(api: Api, wallet: str, sent: str) -> None:
    headers = {"X-Request-Id": sent}

    for answer in (
        api.get("/healthz", headers=headers),
        api.get(f"/v1/wallet/{wallet}", headers=headers),
        api.debit(wallet, {"amount": "1"}, headers=headers),
        api.get("/docs", headers=headers),
    ):
        assert answer.headers.get_list("x-request-id") == [sent]


def test_a_problem_names_its_request(api: Api, wallet: str) -> None:
    headers = {"X-Request-Id": f"mine-{new_id()}"}

    for answer in (
        api.credit(wallet, {"amount": "1000000"}, headers=headers),
        api.credit(wallet, {"amount": "0"}, headers=headers),
        api.get("/no/such/route", headers=headers),
        api.get(f"/v1/wallet/{new_id()}", headers=headers),
        api.http.put("/v1/wallet", headers=headers),
    ):
        assert answer.json()["request_id"] == headers["X-Request-Id"]
        assert answer.headers["x-request-id"] == headers["X-Request-Id"]


@pytest.mark.parametrize("sent", [None, "", "two words", "a" * 129, "grüße".encode()])
def test_a_request_without_a_usable_id_gets_one(api: Api, sent: str | bytes | None) -> None:
    raw = sent.encode() if isinstance(sent, str) else sent
    headers = [] if raw is None else [(b"X-Request-Id", raw)]

    for path in (f"/v1/wallet/{new_id()}", "/no/such/route"):
        answer = api.http.get(path, headers=headers)

        given = answer.headers["x-request-id"]
        assert given == answer.json()["request_id"]
        assert len(given) == 36


@pytest.mark.parametrize("sent", ["0", "-1", "1.5", "x", "", "60001", "9" * 30])
def test_a_wrong_deadline_is_refused(api: Api, wallet: str, sent: str) -> None:
    before = api.state(wallet)

    for path, body in (
        ("/v1/wallet", {}),
        (f"/v1/wallet/{wallet}/transfers/debit", {"amount": "1"}),
        (f"/v1/wallet/{wallet}/transfers/batch", {"items": [{"type": "debit", "amount": "1"}]}),
    ):
        answer = api.post(path, body, headers={"X-Request-Timeout-Ms": sent})
        pointer = "#header/X-Request-Timeout-Ms"
        assert_problem(answer, 422, "validation_error", pointer=pointer)
    assert api.state(wallet) == before


def test_what_is_not_decided_by_the_clients_deadline_is_safe_to_repeat(api: Api) -> None:
    wallet = api.new_wallet()
    path = f"/v1/wallet/{wallet}/transfers/debit"
    body = {"amount": "1", "status": "completed"}
    keys = [new_id() for _ in range(20)]

    for key in keys:
        answer = api.post(path, body, key=key, headers={"X-Request-Timeout-Ms": "1"})
        if answer.status_code != 201:
            assert assert_problem(answer, 504, "deadline_exceeded")["applied"] in ("no", "unknown")
    for key in keys:
        assert api.post(path, body, key=key).status_code == 201

    assert api.state(wallet)["balance"] == "20.00"


def test_serves_own_control_headers_do_nothing(api: Api, wallet: str) -> None:
    headers = {
        "X-Request-Timeout-Seconds": "0.000001",
        "serve_multiplexed_model_id": "x",
        "X-Session-Id": "y",
    }

    answer = api.debit(wallet, {"amount": "1"}, headers=headers)

    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("?dry_run=true", [], 422, "validation_error"),
        ("", [("Idempotency-Key", "a"), ("Idempotency-Key", "b")], 422, "validation_error"),
        ("", [("If-Match", '"1"')], 422, "validation_error"),
        ("", [("Content-Encoding", "gzip")], 415, "unsupported_content_encoding"),
    ],
)
def test_what_would_change_a_write_is_refused_and_not_ignored(
    api: Api, query: str, headers: list[tuple[str, str]], status: int, code: str
) -> None:
    wallet = api.new_wallet("10")
    before = api.state(wallet)
    base = f"/v1/wallet/{wallet}/transfers"
    items = [{"type": "debit", "amount": "1"}]

    for path, body in (
        ("/v1/wallet", {}),
        (f"{base}/debit", {"amount": "1"}),
        (f"{base}/credit", {"amount": "1"}),
        (f"{base}/batch", {"items": items}),
        ("/v1/transfers/batch", {"items": [{**items[0], "wallet_id": wallet}]}),
    ):
        answer = api.http.post(path + query, json=body, headers=headers)
        assert_problem(answer, status, code)

    assert api.state(wallet) == before
