"""A TCP proxy that can lose an answer: the server did it, and the client never hears."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class TcpProxy:
    """Forwards to one server. ``cut_after(text)`` arms it: once the client has sent ``text``, the
    server's next bytes are thrown away and the connection is closed."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._text: bytes | None = None
        self.cuts = 0
        self.port = 0

    def cut_after(self, text: bytes) -> None:
        self._text = text

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        cutting = asyncio.Event()

        async def forward() -> None:
            while data := await reader.read(65_536):
                if self._text is not None and self._text in data:
                    self._text = None
                    cutting.set()
                upstream_writer.write(data)
                await upstream_writer.drain()

        async def back() -> None:
            while data := await upstream_reader.read(65_536):
                if cutting.is_set():
                    self.cuts += 1
                    return
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.create_task(forward()), asyncio.create_task(back())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()
            upstream_writer.close()


@asynccontextmanager
async def proxy_before(dsn: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """A proxy in front of the server of ``dsn``, and the DSN that leads through it."""
    parts = urlsplit(dsn)
    assert parts.hostname is not None
    proxy = TcpProxy(parts.hostname, parts.port or 5432)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    credentials, _, _ = parts.netloc.rpartition("@")
    through = parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}")
    try:
        yield proxy, urlunsplit(through)
    finally:
        server.close()
        await server.wait_closed()
