"""The real HAProxy with Serve's configuration and our wrapper, and slow or broken clients."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from deploy.local.haproxy_start import HOLDER
from tests.support.front_door import FrontDoor, front_door
from tests.support.waiting import until

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"
POST = b"POST / HTTP/1.1\r\nhost: wallet\r\ncontent-length: 2\r\n\r\n{}"
LIMIT_S = 15


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, because it contains a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="fd-") as path:
        yield Path(path)


async def answer_at_once() -> bytes:
    return ANSWER


class Replica(asyncio.Protocol):
    """Responds once it has the header of a request; to health checks immediately."""

    def __init__(self, answer: Callable[[], Awaitable[bytes]], open_ones: "set[Replica]") -> None:
        self._answer = answer
        self._open_ones = open_ones
        self._answers: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._open_ones.add(self)

    def connection_lost(self, _cause: Exception | None) -> None:
        self._open_ones.discard(self)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /-/healthz"):
            self.transport.write(ANSWER)
        elif b"\r\n\r\n" in data:
            task = asyncio.create_task(self._answer_one())
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _answer_one(self) -> None:
        self.transport.write(await self._answer())


@asynccontextmanager
async def replica(answer: Callable[[], Awaitable[bytes]]) -> AsyncIterator[int]:
    """The port of a server that responds with the result of ``answer``."""
    open_ones: set[Replica] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Replica(answer, open_ones), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one in list(open_ones):
            one.transport.abort()
        await until(lambda: not open_ones)


async def exchange(door: FrontDoor, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(LIMIT_S):
            return await reader.readuntil(b"done")
    finally:
        writer.close()


async def dribble(door: FrontDoor, first: bytes, *, every_s: float) -> bytes:
    """The response to a client that sends ``first``, then single bytes until it is disconnected."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(first)
    reading = asyncio.create_task(reader.read())
    try:
        async with asyncio.timeout(LIMIT_S):
            while not (await asyncio.wait({reading}, timeout=every_s))[0]:
                writer.write(b"x")
            return await reading
    except ConnectionResetError:
        return b""
    finally:
        reading.cancel()
        writer.close()


async def test_a_header_that_comes_byte_by_byte_ends_at_its_timeout(folder: Path) -> None:
    async with front_door(folder, header_s=1) as door, replica(answer_at_once) as port:
        door.write(replica=port)
        await door.start()

        answer = await dribble(door, b"GET / HTTP/1.1\r\nhost: wallet\r\nx-slow: ", every_s=0.1)

        assert b"408" in answer.partition(b"\r\n")[0]


async def test_a_body_that_comes_byte_by_byte_ends_at_its_timeout(folder: Path) -> None:
    header = b"POST / HTTP/1.1\r\nhost: wallet\r\ncontent-length: 999\r\n\r\n"
    async with front_door(folder, header_s=1) as door, replica(answer_at_once) as port:
        door.write(replica=port)
        await door.start()

        answer = await dribble(door, header, every_s=0.1)

        assert b"408" in answer.partition(b"\r\n")[0]


async def test_a_stream_of_lines_may_take_its_time(folder: Path) -> None:
    header = (
        b"POST / HTTP/1.1\r\nhost: wallet\r\n"
        b"content-type: application/x-ndjson\r\ncontent-length: 15\r\n\r\n"
    )
    async with front_door(folder, header_s=1) as door, replica(answer_at_once) as port:
        door.write(replica=port)
        await door.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(header)
        reading = asyncio.create_task(reader.readuntil(b"done"))

        async with asyncio.timeout(LIMIT_S):
            assert (await reading).startswith(b"HTTP/1.1 200")  # without the body's end
        writer.close()


async def test_a_connection_that_sends_no_further_request_is_closed(folder: Path) -> None:
    async with front_door(folder, idle_s=1) as door, replica(answer_at_once) as port:
        door.write(replica=port)
        await door.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: wallet\r\n\r\n")

        async with asyncio.timeout(LIMIT_S):
            assert (await reader.read()).endswith(b"done")  # and then the connection is closed
        writer.close()


async def test_a_client_that_closed_its_sending_side_gets_the_replicas_answer(folder: Path) -> None:
    asked, decided = asyncio.Event(), asyncio.Event()

    async def answer_later() -> bytes:
        asked.set()
        await decided.wait()
        return ANSWER

    async with front_door(folder) as door, replica(answer_later) as port:
        door.write(replica=port)
        await door.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(POST)
        async with asyncio.timeout(LIMIT_S):
            await asked.wait()
            writer.write_eof()
            early = asyncio.create_task(reader.read(1))
            await asyncio.wait({early}, timeout=0.3)
            assert not early.done(), "answered before the replica did"
            decided.set()
            answer = await early + await reader.read()
        writer.close()

        assert answer.startswith(b"HTTP/1.1 200")


# -- without a HAProxy, or without routes ----------------------------------------------------------


async def test_nothing_listens_before_there_is_a_route(folder: Path) -> None:
    async with front_door(folder) as door, replica(answer_at_once) as port:
        door.write(replica=None)
        first = await door.start()
        assert not await door.listens()

        door.write(replica=port)
        await door.start("-sf", str(first.pid))

        assert (await exchange(door, POST)).startswith(b"HTTP/1.1 200")


async def test_a_haproxy_that_is_killed_is_missed_for_a_moment_only(folder: Path) -> None:
    async with front_door(folder) as door, replica(answer_at_once) as port:
        door.write(replica=port)
        killed = await door.start()

        os.kill(killed.pid, signal.SIGKILL)
        await killed.wait()
        await door.until_it_listens()

        assert (await exchange(door, POST)).startswith(b"HTTP/1.1 200")
        assert await door.admin("show info") == "", "Serve would not replace it"

        # Serve replaces it, first without routes. Clients are not affected.
        door.write(replica=None)
        manager = await door.start()
        assert (await exchange(door, POST)).startswith(b"HTTP/1.1 200")
        door.write(replica=port)
        successor = await door.start("-sf", str(manager.pid))
        assert (await exchange(door, POST)).startswith(b"HTTP/1.1 200")
        assert door.holder() == successor.pid


async def test_a_standby_that_is_killed_has_a_standby(folder: Path) -> None:
    async with front_door(folder) as door, replica(answer_at_once) as port:
        door.write(replica=port)
        served = (await door.start()).pid
        for _ in range(2):
            os.kill(served, signal.SIGKILL)
            await until(lambda: door.holder() not in (None, served))  # noqa: B023 - awaited here
            served = door.holder() or 0
        await door.until_it_listens()

        assert (await exchange(door, POST)).startswith(b"HTTP/1.1 200")


async def test_a_haproxy_that_is_stopped_on_purpose_has_no_standby(folder: Path) -> None:
    async with front_door(folder) as door, replica(answer_at_once) as port:
        door.write(replica=port)
        stopped = await door.start()

        (folder / HOLDER).unlink()
        stopped.terminate()
        async with asyncio.timeout(LIMIT_S):
            await stopped.wait()
            await until(lambda: not door.processes())  # its watcher, too

        assert not await door.listens()


async def test_a_configuration_that_is_not_as_it_is_known_starts_no_haproxy(folder: Path) -> None:
    async with front_door(folder) as door, replica(answer_at_once) as port:
        door.write(replica=port)
        text = door.configuration.read_text()
        door.configuration.write_text(text.replace("listen stats", "listen statistics"))

        process = await door.spawn()
        assert await asyncio.wait_for(process.wait(), LIMIT_S)
        assert "listen stats" in door.messages.read_text()
        assert not await door.listens()
