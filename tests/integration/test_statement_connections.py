"""Statements over real connections: whoever gets half of one notices it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from deploy.local.ports import free_port
from projections import statements
from projections.statements import Statements
from runtime.postgres.reads import ReadUnavailable
from runtime.settings import Settings
from serve_app.app import create_application
from serve_app.dependencies import Dependencies
from serve_app.routes import statements as route
from tests.support.read_side import queries_on
from tests.support.waiting import until
from tests.support.write_side import ShardUnderTest, debit, running_shard
from wallet.ids import WalletId

ENTRIES = 8_000


@asynccontextmanager
async def serving(database: str) -> AsyncIterator[str]:
    """The API's reads on a port of their own; the URL."""
    async with queries_on(database) as queries:
        services: Any = Dependencies(
            settings=Settings(_env_file=None),
            dispatcher=None,  # type: ignore[arg-type]  # not reached
            queries=queries,
            probes={},
        )
        application: Any = create_application(services)
        port = free_port()
        options = uvicorn.Config(application, port=port, log_level="critical", lifespan="off")
        server = uvicorn.Server(options)
        running = asyncio.create_task(server.serve())
        try:
            await until(lambda: server.started)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            await running


async def long_wallet(
    shard: ShardUnderTest, *, entries: int = ENTRIES, reference_id: str | None = None
) -> WalletId:
    wallet = await shard.create_wallet()
    for _ in range(entries // 1_000):
        made = (debit("1", reference_id=reference_id) for _ in range(1_000))
        await shard.request(wallet, *made)
    return wallet


async def read_into(found: bytearray, client: httpx.AsyncClient, path: str) -> None:
    """Append to ``found`` what arrives."""
    async with client.stream("GET", path) as answer:
        async for chunk in answer.aiter_raw():
            found.extend(chunk)


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
async def test_a_statement_that_breaks_ends_without_the_end_of_its_body(
    database: str, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    rows = Statements.pages

    async def broken(*arguments: Any) -> AsyncIterator[Any]:
        number = 0
        async for page in rows(*arguments):
            number += 1
            if number > 4:
                raise ReadUnavailable("gone")
            yield page

    async with running_shard(database) as shard, serving(database) as url:
        wallet = await long_wallet(shard)
        async with httpx.AsyncClient(base_url=url, headers={"Accept": accept}) as client:
            path = f"/v1/wallet/{wallet}/statement"
            whole = (await client.get(path)).content
            monkeypatch.setattr(Statements, "pages", broken)
            half = bytearray()
            with pytest.raises(httpx.RemoteProtocolError):
                await read_into(half, client, path)
    assert b"closing" in whole
    assert half
    assert whole.startswith(half)
    assert b"closing" not in half


async def test_a_client_that_leaves_stops_the_statement(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "PAGE_EVENTS", 5)
    async with running_shard(database) as shard, serving(database) as url:
        wallet = await long_wallet(shard)
        async with (
            httpx.AsyncClient(base_url=url) as client,
            client.stream("GET", f"/v1/wallet/{wallet}/statement") as answer,
        ):
            await anext(answer.aiter_raw())
            assert len(route._running) == 1
        await until(lambda: not route._running)


async def test_a_client_that_does_not_read_is_disconnected(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "UNREAD_S", 0.2)
    async with running_shard(database) as shard, serving(database) as url:
        # More than the kernel buffers: up to 4 MB.
        wallet = await long_wallet(shard, entries=20_000, reference_id="r" * 255)
        host, port = url.removeprefix("http://").split(":")
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        small.connect((host, int(port)))
        reader, writer = await asyncio.open_connection(sock=small, limit=1_024)
        request = f"GET /v1/wallet/{wallet}/statement HTTP/1.1\r\nHost: here\r\n\r\n"
        transport: Any = writer.transport
        transport.pause_reading()
        writer.write(request.encode())
        await until(lambda: len(route._running) == 1)
        await until(lambda: not route._running)
        transport.resume_reading()
        sent = await reader.read(-1)
        writer.close()
    assert b"closing" not in sent
    assert not sent.endswith(b"0\r\n\r\n")
