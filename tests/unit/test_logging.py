"""Logs: context fields, levels, and redaction of secrets."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from runtime.logging import REDACTED, configure_logging, secrets_in
from runtime.settings import Settings
from serve_app.asgi.access_log import AccessLog
from serve_app.asgi.endpoint import as_asgi
from serve_app.auth.api_key import generate
from serve_app.http.requests import read_body
from tests.support.requests import make_request

PASSWORD = "pa55-w0rd-of-postgres"
TOKEN = "t0ken-of-nats-and-nobody-else"
KEY = "wk_live_0123456789abcdefghijklmnop"
SETTINGS = Settings(
    database_url=f"postgresql://wallet:{PASSWORD}@db:5432/wallet",
    nats_url=f"nats://{TOKEN}@nats:4222",
    log_level="DEBUG",
)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    AccessLog.enable_for("INFO")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def answered(endpoint: Any, request: Request) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await as_asgi(endpoint, None)(request.scope, request.receive, send)
    return sent


async def show_wallet(request: Request) -> Response:
    await read_body(request, 1_000)
    return Response(status_code=204)


async def break_down(request: Request) -> Response:
    raise RuntimeError(f"lost {SETTINGS.database_url} for {request.headers['authorization']}")


def with_secrets() -> Request:
    return make_request(
        headers={"Authorization": f"Bearer {KEY}", "X-Request-Id": "r-1", "X-Api-Key": KEY},
        path={"wallet_id": "w-1", "transfer_id": "t-1"},
        chunks=[b'{"amount": "12.34"}'],
    )


async def test_at_debug_every_request_has_a_line_with_its_ids(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(SETTINGS)
    AccessLog.enable_for(SETTINGS.log_level)
    await answered(show_wallet, with_secrets())
    (line,) = lines(capsys)
    assert line["event"] == "request completed"
    assert line["level"] == "debug"
    assert (line["route"], line["status"]) == ("show_wallet", 204)
    assert (line["request_id"], line["wallet_id"], line["transfer_id"]) == ("r-1", "w-1", "t-1")


async def test_above_debug_requests_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(SETTINGS.model_copy(update={"log_level": "INFO"}))
    AccessLog.enable_for("INFO")
    await answered(show_wallet, with_secrets())
    assert lines(capsys) == []


@pytest.mark.parametrize("format_", ["json", "pretty"])
async def test_a_bug_is_logged_with_its_ids_and_without_any_secret(
    capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    configure_logging(SETTINGS.model_copy(update={"log_format": format_}))
    AccessLog.enable_for("DEBUG")
    await answered(break_down, with_secrets())
    text = capsys.readouterr().out
    assert "RuntimeError" in text
    assert "break_down" in text
    assert all(found in text for found in ("r-1", "w-1", "t-1", REDACTED))
    assert not any(secret in text for secret in (PASSWORD, TOKEN, KEY, "12.34"))


@pytest.mark.parametrize(
    "said",
    [
        f"could not connect to {SETTINGS.database_url}",
        f"password {PASSWORD} is wrong",
        f"nats: authorization violation for {SETTINGS.nats_url}",
        "postgresql://somebody:else@db/x",
        f"Authorization: Bearer {KEY}",
    ],
)
def test_a_secret_is_redacted_wherever_it_occurs(
    capsys: pytest.CaptureFixture[str], said: str
) -> None:
    configure_logging(SETTINGS)
    structlog.get_logger().warning(said, cause=said, nested={"deep": [said]})
    text = capsys.readouterr().out
    assert REDACTED in text
    assert not any(secret in text for secret in (PASSWORD, TOKEN, KEY, "else@"))


def test_of_an_api_key_the_public_half_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    key = generate()
    secret = key.text.rpartition("_")[2]
    configure_logging(Settings())
    structlog.get_logger().info("sent", body=f"{{'key': '{key.text}'}}", query=f"?key={key.text}")
    text = capsys.readouterr().out
    assert text.count(f"wk_{key.key_id}_{REDACTED}") == 2
    assert secret not in text


def test_an_address_without_a_secret_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    url = "http://127.0.0.1:8089/v1/wallet/a@b"
    structlog.get_logger().info("at", url=url)
    assert lines(capsys)[0]["url"] == url


def test_a_password_is_known_as_it_is_written_and_as_it_is() -> None:
    settings = Settings(database_url="postgresql://w:p%40ss%2Fword@db/x", nats_url="nats://n:4222")
    assert secrets_in(settings) == {"p%40ss%2Fword", "p@ss/word"}
