"""A shard's port with TLS: clients without a certificate of the cluster's authority are refused."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from actors.rpc.client import connect
from actors.rpc.keepalive import Heartbeat
from actors.rpc.server import RpcEndpoint, RpcServer
from actors.rpc.tls import TlsFiles
from actors.rpc.transport import ShardUnreachable
from runtime.settings import Settings
from tests.support.certificates import tls_files

QUICK = Heartbeat(shard_ping_s=0.01, shard_pings_missed_max=20)
NONE = TlsFiles(shard_tls_certificate="", shard_tls_key="", shard_tls_authority="")
SERVER, CLIENT = ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH


async def echo(payload: bytes) -> bytes:
    return payload


@asynccontextmanager
async def listening(files: TlsFiles) -> AsyncIterator[RpcEndpoint]:
    listener = RpcServer(echo, lambda: None, files.context(SERVER))
    try:
        yield await listener.start("127.0.0.1")
    finally:
        await listener.close()


@pytest.mark.parametrize("size", [1, 3_000_000])
async def test_calls_go_through_tls(tmp_path: Path, size: int) -> None:
    files = tls_files(tmp_path)
    async with listening(files) as address:
        channel = await connect(address, QUICK, files.context(CLIENT))
        assert await channel.call(b"x" * size) == b"x" * size
        channel.close()


async def test_what_travels_is_not_readable(tmp_path: Path) -> None:
    files = tls_files(tmp_path)
    seen = bytearray()

    async def spy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.read(65_536))
        writer.close()

    server = await asyncio.start_server(spy, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        with pytest.raises(ShardUnreachable):
            await connect(
                RpcEndpoint(host=host, port=port, secret="a secret"), QUICK, files.context(CLIENT)
            )
    assert seen
    assert b"a secret" not in seen


@pytest.mark.parametrize("client", ["plain", "other authority", "expired"])
async def test_a_caller_without_a_good_certificate_gets_nowhere(
    tmp_path: Path, client: str
) -> None:
    files = tls_files(tmp_path / "ours")
    context = None
    if client == "other authority":
        other = tls_files(tmp_path / "other").context(CLIENT)
        assert other is not None
        other.load_verify_locations(files.shard_tls_authority)  # It would accept our certificate.
        context = other
    elif client == "expired":
        files = tls_files(tmp_path / "old", life=timedelta(seconds=-1))
        context = files.context(CLIENT)
    async with listening(files) as address:
        with pytest.raises(ShardUnreachable) as lost:
            await connect(address, QUICK, context)
        assert not lost.value.delivered


@pytest.mark.parametrize("listener", ["plain", "other authority"])
async def test_a_listener_without_a_good_certificate_is_not_spoken_to(
    tmp_path: Path, listener: str
) -> None:
    files = tls_files(tmp_path / "ours")
    other = NONE if listener == "plain" else tls_files(tmp_path / "other")
    async with listening(other) as address:
        with pytest.raises(ShardUnreachable) as lost:
            await connect(address, QUICK, files.context(CLIENT))
        assert not lost.value.delivered


def test_without_files_there_is_no_tls() -> None:
    assert NONE.context(SERVER) is None
    assert NONE.context(CLIENT) is None


def test_a_part_of_the_files_is_refused() -> None:
    with pytest.raises(ValidationError, match="none of them"):
        Settings(_env_file=None, shard_tls_certificate="node.pem")
    with pytest.raises(OSError, match="No such file"):
        TlsFiles(
            shard_tls_certificate="/nowhere/a", shard_tls_key="/nowhere/b", shard_tls_authority=""
        ).context(CLIENT)
