"""A TCP forwarder: a network path that can stall, be cut, and lead to another server.

It runs in a thread of its own, so that it outlives the event loops of the tests.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from deploy.local.ports import LOOPBACK

_READ_BYTES: Final = 65_536
_ANSWER_S: Final = 10.0


class TcpLink:
    """Forwards to one server at a time. Created by `tcp_link`."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._flows = asyncio.Event()
        self._flows.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Listen on a port of the system's choice."""
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._handle, LOOPBACK, 0), self._loop
        ).result(_ANSWER_S)
        self.port = self._server.sockets[0].getsockname()[1]

    def lead_to(self, target_port: int) -> None:
        """New connections reach another server; existing ones are cut."""
        self._target_port = target_port
        self.cut()

    def stall(self) -> None:
        """Stop forwarding. Connections stay open: what is sent waits, as behind a slow network."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def resume(self) -> None:
        self._loop.call_soon_threadsafe(self._flows.set)

    def cut(self) -> None:
        """Break every connection that was forwarded so far. What waited is lost."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(_ANSWER_S)

    def stop(self) -> None:
        if self._server is not None:
            self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_S)
        self._loop.close()

    async def _cut(self) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            return  # asyncio's own callback would log either
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(LOOPBACK, self._target_port)
        directions = [
            asyncio.create_task(self._pump(reader, to_server)),
            asyncio.create_task(self._pump(from_server, writer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_server.transport.abort()  # before awaiting: a cut may cancel what ends already
            for one in directions:
                one.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()


@contextmanager
def tcp_link(target_port: int) -> Iterator[TcpLink]:
    """A link to a port of this machine, stopped when the context ends."""
    link = TcpLink(target_port)
    link.start()
    try:
        yield link
    finally:
        link.stop()
