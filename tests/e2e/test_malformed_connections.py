"""Slow, aborted or non-HTTP connections do not affect other clients."""

import socket
from urllib.parse import urlsplit

import pytest

from tests.e2e.api import Api, eventually
from tests.support.running_service import RunningService


@pytest.fixture(scope="module")
def wallet(api: Api) -> str:
    return api.new_wallet()


def _connect(service: RunningService) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def test_a_body_that_comes_slowly_delays_nobody_else(
    service: RunningService, api: Api, wallet: str
) -> None:
    head = (
        f"POST /v1/wallet/{wallet}/transfers/debit HTTP/1.1\r\nHost: x\r\n"
        "Content-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    ).encode()
    before = api.state(wallet)["version"]
    slow = [_connect(service) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(head + b'{"amou')

        for _ in range(20):
            assert api.debit(wallet, {"amount": "1"}).status_code == 201

        slow[0].sendall(b'nt": "1"}')
        assert slow[0].recv(12) == b"HTTP/1.1 201"
    finally:
        for connection in slow:
            connection.close()
    # Requests aborted in the middle of the body have written nothing.
    eventually(lambda: bool(api.state(wallet)["version"] == before + 21))


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / JUNK/1.1\r\n\r\n",
        b"POST /v1/wallet HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/wallet HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v1/wallet HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:40]),
)
def test_what_is_no_http_is_turned_away(service: RunningService, api: Api, sent: bytes) -> None:
    with _connect(service) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        except OSError:
            answer = b""  # refused before it was sent completely

    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer
    assert b"Traceback" not in answer
    assert api.get("/healthz").status_code == 200
