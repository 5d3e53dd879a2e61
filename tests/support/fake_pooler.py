"""A connection pooler in transaction mode: each transaction gets a backend of any session.

A client logs in to the real server through it, and its backend joins the pool. From then on each
group of messages up to a Sync or a query runs on a pooled backend. Like PgBouncer it makes up the
pid that it sends to the client, and it may refuse or drop the settings sent at session start.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

_SSL_REQUEST: Final = 80_877_103
_TRACKED: Final = frozenset({"user", "database", "client_encoding", "application_name"})
_LOGIN_DONE: Final = frozenset({0, 12})
"""Authentication messages that the client doesn't answer."""

_LAST_ANSWERS: Final = {b"S": b"Z", b"Q": b"Z", b"H": b"TnE"}
"""What ends the server's answer to a Sync, a query, and to a Flush after a description."""

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FakePooler:
    """In front of one server. ``startup``: what it does with settings sent at session start."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        startup: Literal["refuse", "drop", "forward"],
        takes: Literal["newest", "oldest"] = "newest",
    ) -> None:
        self._target = (host, port)
        self._startup = startup
        self._takes = takes
        self._idle: deque[Ends] = deque()
        self._made_up_pids = itertools.count(1)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                if await self._log_in((reader, writer)):
                    await self._serve((reader, writer))
        except asyncio.CancelledError:
            return  # The test is over.
        finally:
            writer.transport.abort()

    def close(self) -> None:
        for _, writer in self._idle:
            writer.transport.abort()

    async def _log_in(self, client: Ends) -> bool:
        parameters = await _startup_parameters(client)
        refused = [name for name in parameters if name not in _TRACKED]
        if refused and self._startup == "refuse":
            client[1].write(_error(f"unsupported startup parameter: {refused[0]}"))
            return False
        if self._startup == "drop":
            parameters = {name: parameters[name] for name in parameters if name in _TRACKED}
        backend = await asyncio.open_connection(*self._target)
        backend[1].write(_startup_message(parameters))
        while True:
            kind, message = await _read_message(backend[0])
            if kind == b"K":
                message = message[:5] + next(self._made_up_pids).to_bytes(4, "big") + message[9:]
            client[1].write(message)
            if kind == b"R" and int.from_bytes(message[5:9], "big") not in _LOGIN_DONE:
                backend[1].write((await _read_message(client[0]))[1])
            if kind == b"E":
                return False
            if kind == b"Z":
                self._idle.append(backend)
                return True

    async def _serve(self, client: Ends) -> None:
        """One transaction after another; each ends with the answer to a Sync or a query."""
        while True:
            kind, message = await _read_message(client[0])
            if kind == b"X":
                return
            backend = self._idle.pop() if self._takes == "newest" else self._idle.popleft()
            while True:
                backend[1].write(message)
                if kind in _LAST_ANSWERS:
                    await _answer(backend, client, _LAST_ANSWERS[kind])
                if kind in b"SQ":
                    break
                kind, message = await _read_message(client[0])
            self._idle.append(backend)


async def _answer(backend: Ends, client: Ends, last: bytes) -> None:
    while True:
        kind, message = await _read_message(backend[0])
        client[1].write(message)
        if kind in last:
            return


async def _startup_parameters(client: Ends) -> dict[str, str]:
    reader, writer = client
    while True:
        length = int.from_bytes(await reader.readexactly(4), "big")
        body = await reader.readexactly(length - 4)
        if int.from_bytes(body[:4], "big") != _SSL_REQUEST:
            words = [word.decode() for word in body[4:].split(b"\0") if word]
            return dict(zip(words[::2], words[1::2], strict=True))
        writer.write(b"N")


def _startup_message(parameters: dict[str, str]) -> bytes:
    words = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
    body = (3 << 16).to_bytes(4, "big") + words + b"\0"
    return (len(body) + 4).to_bytes(4, "big") + body


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


def _error(text: str) -> bytes:
    payload = f"SFATAL\0VFATAL\0C08P01\0M{text}\0\0".encode()
    return b"E" + (len(payload) + 4).to_bytes(4, "big") + payload


@asynccontextmanager
async def pooler_before(
    url: str,
    *,
    startup: Literal["refuse", "drop", "forward"],
    takes: Literal["newest", "oldest"] = "newest",
) -> AsyncIterator[str]:
    """The DSN through a pooler in front of the server of ``url``."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    pooler = FakePooler(parts.hostname, parts.port or 5432, startup=startup, takes=takes)
    server = await asyncio.start_server(pooler.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    account = parts.netloc.rpartition("@")[0]
    try:
        yield urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{port}"))
    finally:
        server.close()
        pooler.close()
