"""A TCP proxy in front of Postgres that injects faults at protocol level.

It parses the client's messages to find those that commit a batch. It can drop the response to a
commit, answer a commit with SQLSTATE 53100 (disk full), and delay every statement. The server's
messages are forwarded without parsing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_ENCRYPTION_REQUESTS: Final = {80_877_103, 80_877_104}
_COMMITS: Final = b"commit_batch"
_ENDS_A_GROUP: Final = b"SQHXp"
"""Sync, Query, Flush, Terminate, password: messages that the server answers immediately."""

DISK_FULL: Final = "53100"


class PostgresProxy:
    """Forwards to one server. The injected faults can be changed at any time."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.port = 0
        self.slow_s = 0.0
        """Delay of each statement, in seconds."""
        self.refuse_with = ""
        """SQLSTATE returned for commits; empty: commits are forwarded."""
        self.lose_answers = 0
        """The next so many commits are executed, but their responses are dropped."""
        self.lost = 0
        self.refused = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client connection until it ends."""
        try:
            upstream = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        tasks = [
            asyncio.create_task(run)
            for connection in (_Connection(self, (reader, writer), upstream),)
            for run in (connection.forward(), connection.back())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The run is over. Re-raised here, asyncio's own callback would log an error.
            return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.transport.abort()
            upstream[1].transport.abort()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """One client connection, its server connection and its prepared statements."""

    def __init__(self, proxy: PostgresProxy, client: Ends, server: Ends) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._commits: set[bytes] = set()
        self._commits_now = False
        self._cutting = False

    async def back(self) -> None:
        while data := await self._from_server.read(65_536):
            if self._cutting:
                self._proxy.lost += 1
                return
            self._to_client.write(data)
            await self._to_client.drain()

    async def forward(self) -> None:
        await self._start()
        group = b""
        while True:
            kind, message = await self._message()
            group += message
            self._note(kind, message[5:])
            if kind not in _ENDS_A_GROUP:
                continue
            await self._send(group, commits=self._commits_now and kind == b"S")
            self._commits_now = self._commits_now and kind != b"S"
            group = b""

    async def _start(self) -> None:
        """Startup messages have no type byte. The client requests TLS and the server refuses it."""
        while True:
            head = await self._from_client.readexactly(8)
            rest = await self._from_client.readexactly(int.from_bytes(head[:4], "big") - 8)
            self._to_server.write(head + rest)
            if int.from_bytes(head[4:], "big") not in _ENCRYPTION_REQUESTS:
                return

    async def _message(self) -> tuple[bytes, bytes]:
        head = await self._from_client.readexactly(5)
        rest = await self._from_client.readexactly(int.from_bytes(head[1:], "big") - 4)
        return head[:1], head + rest

    def _note(self, kind: bytes, payload: bytes) -> None:
        if kind == b"P":
            name, _, query = payload.partition(b"\0")
            if _COMMITS in query:
                self._commits.add(name)
            else:
                self._commits.discard(name)
        elif kind == b"B":
            _portal, _, rest = payload.partition(b"\0")
            self._commits_now = rest.partition(b"\0")[0] in self._commits

    async def _send(self, group: bytes, *, commits: bool) -> None:
        proxy = self._proxy
        if proxy.slow_s:
            await asyncio.sleep(proxy.slow_s)
        if commits and proxy.refuse_with:
            proxy.refused += 1
            self._to_client.write(_refusal(proxy.refuse_with))
            return
        if commits and proxy.lose_answers > 0:
            proxy.lose_answers -= 1
            self._cutting = True
        self._to_server.write(group)
        await self._to_server.drain()


def _refusal(code: str) -> bytes:
    """ErrorResponse and ReadyForQuery, as the server sends them after a failed statement."""
    message = "could not extend file: No space left on device"
    fields = "".join(
        f"{kind}{text}\0"
        for kind, text in zip("SVCM", ("ERROR", "ERROR", code, message), strict=True)
    )
    payload = fields.encode() + b"\0"
    return b"E" + (len(payload) + 4).to_bytes(4, "big") + payload + b"Z\0\0\0\5I"


@asynccontextmanager
async def proxy_before(url: str) -> AsyncIterator[tuple[PostgresProxy, str]]:
    """A proxy in front of the server of ``url``, and the DSN through the proxy."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    proxy = PostgresProxy(parts.hostname, parts.port or 5432)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    credentials, _, _ = parts.netloc.rpartition("@")
    through = parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}")
    try:
        yield proxy, urlunsplit(through)
    finally:
        server.close()
