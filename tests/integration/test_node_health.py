"""A node's HAProxy: `/healthz` is about the node, and its own errors are problem documents."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from deploy.local.haproxy_health import ADMISSION_SERVER
from deploy.node import drain
from tests.support.front_door import FrontDoor, front_door
from tests.support.waiting import until_true

_LIMIT_S: Final = 15.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: Unix sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="nh-", dir="/tmp") as folder:
        node = Path(folder) / "node"  # Serve has a folder per node
        node.mkdir()
        yield node


class Replica:
    """An ingress replica. ``health``: the status of its `/healthz`; None: no answer to writes."""

    def __init__(self) -> None:
        self.health = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer checks; close the connection on anything else, as if the process died."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1]
                if path not in (b"/-/healthz", b"/healthz"):
                    break
                status = 200 if path == b"/-/healthz" else self.health
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 7\r\n\r\nreplica" % status)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def replica() -> AsyncIterator[tuple[Replica, int]]:
    """A replica and its port."""
    made = Replica()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with server:
        yield made, server.sockets[0].getsockname()[1]


async def get(door: FrontDoor, path: str = "/healthz") -> httpx.Response:
    async with httpx.AsyncClient(timeout=_LIMIT_S, trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{door.port}{path}")


async def until_health_is(door: FrontDoor, status: int) -> None:
    async def is_so() -> bool:
        return (await get(door)).status_code == status

    await until_true(is_so, timeout_s=_LIMIT_S)


async def test_the_health_of_a_node_is_that_of_its_replica(folder: Path) -> None:
    async with front_door(folder) as door, replica() as (one, port):
        door.write(replica=port)
        await door.start()
        await until_health_is(door, 200)
        assert (await get(door)).text == "replica"

        one.health = 503

        assert (await get(door)).status_code == 503


async def test_a_node_that_reaches_no_replica_is_unhealthy(folder: Path) -> None:
    async with front_door(folder) as door:
        async with replica() as (_, port):
            door.write(replica=port)
            await door.start()
            await until_health_is(door, 200)
        await until_health_is(door, 503)

        answer = await get(door)

        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"


async def test_a_drained_node_is_unhealthy_at_once_and_after_a_reload(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_SOCKET_PATH", str(folder.parent / "a.sock"))
    async with front_door(folder) as door, replica() as (_, port):
        door.write(replica=port)
        first = await door.start()
        await until_health_is(door, 200)

        assert await asyncio.to_thread(drain.refuse_health) == 1

        assert (await get(door)).status_code == 503
        # A reload, as Serve does it: the state of servers is carried over.
        (folder / "server-state").write_text(await door.admin("show servers state"))
        await door.start("-sf", str(first.pid), "-x", str(folder / "a.sock"))
        assert "1" in (await door.admin(f"show servers state {ADMISSION_SERVER.split('/')[0]}"))
        assert (await get(door)).status_code == 503


async def test_a_replica_answers_for_a_node_that_serve_forgot_to_undrain(folder: Path) -> None:
    async with front_door(folder) as door:
        async with replica() as (one, port):
            door.write(replica=port, drains=True)
            await door.start()
            await until_health_is(door, 200)
            assert (await get(door)).text == "replica"

            one.health = 503
            assert (await get(door)).status_code == 503
            one.health = 200

        await until_health_is(door, 503)
        assert (await get(door)).headers["content-type"] == "application/problem+json"


async def test_a_connection_that_breaks_leaves_it_open_whether_it_was_applied(folder: Path) -> None:
    async with front_door(folder) as door, replica() as (_, port):
        door.write(replica=port)
        await door.start()
        await until_health_is(door, 200)

        answer = await get(door, "/v1/wallet/x")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert json.loads(answer.text)["applied"] == "unknown"


async def test_without_a_replica_nothing_was_applied(folder: Path) -> None:
    async with front_door(folder) as door:
        async with replica() as (_, port):
            door.write(replica=port)
            await door.start()
            await until_health_is(door, 200)
        await until_health_is(door, 503)

        answer = await get(door, "/v1/wallet/x")

    assert answer.status_code == 503
    problem = json.loads(answer.text)
    assert (problem["code"], problem["applied"]) == ("unavailable", "no")
