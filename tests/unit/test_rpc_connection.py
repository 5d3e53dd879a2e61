"""The RPC server and client of a shard, over real loopback sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest

from actors.rpc import client, server
from actors.rpc.client import RemoteCallError, RpcClient, connect
from actors.rpc.framing import (
    FRAME_BYTES_MAX,
    FrameDecoder,
    FrameKind,
    encode_frame,
    greeting,
    parse_greeting,
)
from actors.rpc.keepalive import Heartbeat, enable_keepalive
from actors.rpc.messages import VERSION
from actors.rpc.server import Health, RpcEndpoint, RpcServer
from actors.rpc.transport import ShardUnreachable
from tests.support.virtual_time import VirtualTimeLoop
from tests.support.waiting import until, until_true

LOOPBACK = "127.0.0.1"
PATIENT = Heartbeat(shard_ping_s=60.0, shard_pings_missed_max=3)
QUICK = Heartbeat(shard_ping_s=0.01, shard_pings_missed_max=3)


class Shard:
    """Echoes each call when the test allows it."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[bytes, asyncio.Future[bytes]]] = asyncio.Queue()

    async def handle(self, payload: bytes) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.calls.put_nowait((payload, answer))
        return await answer

    async def next_call(self) -> tuple[bytes, "asyncio.Future[bytes]"]:
        async with asyncio.timeout(5):
            return await self.calls.get()


async def echo(payload: bytes) -> bytes:
    return payload


@asynccontextmanager
async def listening(
    handler: Callable[[bytes], Awaitable[bytes]], health: Health = lambda: None
) -> AsyncIterator[tuple[RpcServer, RpcEndpoint]]:
    listener = RpcServer(handler, health)
    address = await listener.start(LOOPBACK)
    try:
        yield listener, address
    finally:
        await listener.close()


@asynccontextmanager
async def connected(
    address: RpcEndpoint, heartbeat: Heartbeat = PATIENT
) -> AsyncIterator[RpcClient]:
    channel = await connect(address, heartbeat)
    try:
        yield channel
    finally:
        channel.close()


async def answered(address: RpcEndpoint, sent: bytes) -> bytes:
    """The response to an unauthenticated client that sends ``sent``, until it is disconnected."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_a_call_is_answered(size: int) -> None:
    async with listening(echo) as (_, address), connected(address) as channel:
        assert await channel.call(b"x" * size) == b"x" * size


async def test_calls_are_answered_as_they_are_done() -> None:
    shard = Shard()
    async with listening(shard.handle) as (_, address), connected(address) as channel:
        slow = asyncio.create_task(channel.call(b"slow"))
        _, slow_answer = await shard.next_call()
        quick = asyncio.create_task(channel.call(b"quick"))
        (_, quick_answer) = await shard.next_call()
        quick_answer.set_result(b"first")
        assert await quick == b"first"
        slow_answer.set_result(b"second")
        assert await slow == b"second"


async def test_an_answer_that_nobody_waits_for_any_more_disturbs_nobody() -> None:
    shard = Shard()
    async with listening(shard.handle) as (_, address), connected(address) as channel:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await channel.call(b"late")
        (_, answer) = await shard.next_call()
        answer.set_result(b"too late")
        following = asyncio.create_task(channel.call(b"next"))
        (_, answer) = await shard.next_call()
        answer.set_result(b"in time")
        assert await following == b"in time"


async def test_a_bug_in_the_shard_reaches_its_caller_and_the_connection_stays() -> None:
    async def fail_once(payload: bytes) -> bytes:
        if payload == b"poison":
            raise ZeroDivisionError("a bug")
        return payload

    async with listening(fail_once) as (_, address), connected(address) as channel:
        with pytest.raises(RemoteCallError, match="a bug"):
            await channel.call(b"poison")
        assert await channel.call(b"fine") == b"fine"


# -- loss ----------------------------------------------------------------------------------------


async def test_a_connection_that_breaks_ends_its_calls_as_delivered() -> None:
    shard = Shard()
    async with listening(shard.handle) as (listener, address), connected(address) as channel:
        calling = asyncio.create_task(channel.call(b"x"))
        await shard.next_call()
        await listener.close()
        with pytest.raises(ShardUnreachable) as lost:
            await calling
        assert lost.value.delivered
        assert channel.closed


async def test_a_call_on_a_broken_connection_was_surely_not_delivered() -> None:
    async with listening(echo) as (listener, address), connected(address) as channel:
        calling = asyncio.create_task(channel.call(b"x"))
        assert await calling == b"x"
        await listener.close()
        await until(lambda: channel.closed)
        with pytest.raises(ShardUnreachable) as lost:
            await channel.call(b"y")
        assert not lost.value.delivered


async def test_nobody_at_an_address_is_no_delivery() -> None:
    async with listening(echo) as (_, address):
        pass
    with pytest.raises(ShardUnreachable) as lost:
        await connect(address, PATIENT)
    assert not lost.value.delivered


async def test_a_shard_that_does_not_authenticate_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "_CONNECT_TIMEOUT_S", 0.1)
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, LOOPBACK, 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        with pytest.raises(ShardUnreachable) as lost:
            await connect(RpcEndpoint(host=host, port=port, secret="s"), PATIENT)
    assert not lost.value.delivered


async def test_a_frame_of_an_unknown_kind_fails_alone() -> None:
    shard = Shard()
    async with listening(shard.handle) as (_, address):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(encode_frame(FrameKind.AUTH, 0, greeting(VERSION, address.secret.encode())))
        writer.write(encode_frame(FrameKind.CALL, 1, b"x"))
        writer.write(b"\0\0\0\0" + b"\0\0\0\2" + b"\x09")
        (_, answer) = await shard.next_call()
        answer.set_result(b"y")
        found: list[tuple[int, int, bytes]] = []
        frames = FrameDecoder(bytes_max=100)
        async with asyncio.timeout(5):
            while len(found) < 3:
                found += frames.feed(await reader.read(1_000))
        writer.close()
        assert found[1:] == [(FrameKind.ERROR, 2, b"a frame of kind 9"), (FrameKind.REPLY, 1, b"y")]


async def test_both_ends_enable_tcp_keepalive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[socket.socket] = []
    for module in (client, server):
        monkeypatch.setattr(module, "enable_keepalive", seen.append)
    async with listening(echo) as (_, address), connected(address) as channel:
        await channel.call(b"x")
        assert len(seen) == 2
        for connection in seen:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            enable_keepalive(connection)
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


# -- versions --------------------------------------------------------------------------------------


async def test_a_caller_of_another_version_gets_ours_and_is_disconnected() -> None:
    shard = Shard()
    async with listening(shard.handle) as (_, address):
        hello = encode_frame(FrameKind.AUTH, 0, greeting(VERSION + 1, address.secret.encode()))
        reported = await answered(address, hello + encode_frame(FrameKind.CALL, 1, b"x"))
        assert reported == encode_frame(FrameKind.AUTH, 0, greeting(VERSION))
        assert shard.calls.empty()


async def test_a_caller_gives_up_a_shard_of_another_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "VERSION", VERSION + 1)
    async with listening(echo) as (_, address):
        with pytest.raises(ShardUnreachable, match=f"version {VERSION + 1}") as lost:
            await connect(address, PATIENT)
        assert not lost.value.delivered


# -- heartbeat -------------------------------------------------------------------------------------


async def test_pongs_say_why_the_shards_writes_would_not_go_through() -> None:
    said: list[str | None] = ["the disk is full"]
    async with (
        listening(echo, lambda: said[0]) as (listener, address),
        connected(address, QUICK) as channel,
    ):
        assert await channel.writing_problem() == "the disk is full"
        said[0] = None

        async def is_well() -> bool:
            return await channel.writing_problem() is None

        await until_true(is_well)
        await listener.close()
        await until(lambda: channel.closed)
        with pytest.raises(ShardUnreachable):
            await channel.writing_problem()


class Silent(asyncio.Protocol):
    """Authenticates, then answers the first ``pings`` pings."""

    def __init__(self, pings: int) -> None:
        self._pings = pings
        self._frames = FrameDecoder(bytes_max=FRAME_BYTES_MAX)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for kind, call, payload in self._frames.feed(data):
            if kind == FrameKind.AUTH:
                version, _ = parse_greeting(payload)
                self._transport.write(encode_frame(FrameKind.AUTH, 0, greeting(version)))
            elif kind == FrameKind.PING and self._pings > 0:
                self._pings -= 1
                self._transport.write(encode_frame(FrameKind.PONG, call, b""))


@pytest.mark.parametrize("pings", [0, 5])
async def test_a_hanging_shard_is_given_up_and_its_calls_count_as_delivered(
    pings: int,
) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Silent(pings), LOOPBACK, 0)
    host, port = server.sockets[0].getsockname()
    async with server, connected(RpcEndpoint(host=host, port=port, secret="s"), QUICK) as channel:
        with pytest.raises(ShardUnreachable, match="does not answer pings") as lost:
            async with asyncio.timeout(5):
                await channel.call(b"x")
        assert lost.value.delivered
        assert channel.closed


async def test_a_shard_that_works_on_a_call_for_long_is_not_given_up() -> None:
    shard = Shard()
    loop = asyncio.get_running_loop()
    async with listening(shard.handle) as (_, address), connected(address, QUICK) as channel:
        calling = asyncio.create_task(channel.call(b"x"))
        (_, answer) = await shard.next_call()
        loop.call_later(20 * QUICK.shard_ping_s, answer.set_result, b"y")
        assert await calling == b"y"


async def test_a_caller_that_was_held_up_reads_before_it_reports_a_loss() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    async with listening(echo) as (_, address), connected(address, QUICK) as channel:
        for _ in range(5):
            loop.stall(5 * QUICK.shard_ping_s)
            assert await channel.call(b"x") == b"x"


# -- unauthenticated clients -----------------------------------------------------------------------


async def test_a_wrong_secret_opens_nothing() -> None:
    shard = Shard()
    async with listening(shard.handle) as (_, address):
        wrong = msgspec.structs.replace(address, secret="0" * len(address.secret))
        with pytest.raises(ShardUnreachable) as lost:
            await connect(wrong, PATIENT)
        assert not lost.value.delivered
        assert shard.calls.empty()


@pytest.mark.parametrize(
    "sent",
    [
        encode_frame(FrameKind.CALL, 1, b"x"),
        encode_frame(FrameKind.AUTH, 0, b""),
        encode_frame(FrameKind.AUTH, 0, greeting(VERSION)),
        encode_frame(FrameKind.AUTH, 0, greeting(VERSION, b"s" * 64)),
        encode_frame(FrameKind.PING, 0, b""),
        encode_frame(FrameKind.AUTH, 0, b"s" * 1_000),
        b"GET / HTTP/1.1\r\nHost: shard\r\n\r\n",
    ],
)
async def test_an_unauthenticated_client_gets_no_answer(sent: bytes) -> None:
    shard = Shard()
    async with listening(shard.handle) as (_, address):
        assert await answered(address, sent) == b""
        assert shard.calls.empty()


async def test_who_says_nothing_is_shown_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_AUTH_TIMEOUT_S", 0.05)
    async with listening(echo) as (_, address):
        assert await answered(address, b"") == b""


async def test_every_process_has_a_secret_of_its_own_and_does_not_print_it() -> None:
    async with listening(echo) as (_, one), listening(echo) as (_, other):
        assert one.secret != other.secret
        assert len(one.secret) == 64
        assert one.secret not in repr(one)
