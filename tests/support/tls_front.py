"""TLS in front of a Postgres whose build has none: sessions are encrypted as far as this proxy."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from actors.rpc.tls import TlsFiles
from tests.support.hosts import Server

_SSL_REQUEST: Final = 80_877_103


class TlsFront:
    """Counts the sessions that it forwards."""

    def __init__(self, target: Server, files: TlsFiles) -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.shard_tls_certificate, files.shard_tls_key)
        self.address: Server = ("", 0)
        self.encrypted = 0
        self.plain = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                await self._forward(reader, writer)
        except asyncio.CancelledError:
            return  # The test is over.
        finally:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(8)
        is_encrypted = int.from_bytes(head[4:], "big") == _SSL_REQUEST
        if is_encrypted:
            writer.write(b"S")
            await writer.start_tls(self._context)
            head = await reader.readexactly(8)
        self.encrypted += is_encrypted
        self.plain += not is_encrypted
        from_server, to_server = await asyncio.open_connection(*self._target)
        to_server.write(head)
        both = [
            asyncio.create_task(_copy(reader, to_server)),
            asyncio.create_task(_copy(from_server, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            to_server.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        target.write(data)
        await target.drain()


@asynccontextmanager
async def tls_before(target: Server, files: TlsFiles) -> AsyncIterator[TlsFront]:
    """TLS with the certificate of ``files``, in front of ``target``."""
    front = TlsFront(target, files)
    server = await asyncio.start_server(front.handle, "127.0.0.1", 0)
    front.address = server.sockets[0].getsockname()
    try:
        yield front
    finally:
        server.close()
