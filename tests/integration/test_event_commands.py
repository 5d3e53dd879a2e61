"""The reader may read and nothing else, and `wallet events tail` shows what is on the stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from deploy.cli import event_commands
from deploy.cli.event_commands import TailOptions, line_of, tail_options
from deploy.local.errors import StackError
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings
from tests.support.own_nats import OwnNats

STREAM = "WALLET_EVENTS"
WALLET, OTHER = "0192f0c1-3b5a-7c1d-9e2f-4a6b8c0d2e1f", "0192f0c1-3b5a-7c1d-9e2f-4a6b8c0d2e20"


@asynccontextmanager
async def jetstream_at(url: str) -> AsyncIterator[JetStreamContext]:
    async def ignore(_failure: Exception) -> None:
        """A refused message is an error of the connection, too."""

    client = await nats.connect(url, allow_reconnect=False, error_cb=ignore)
    try:
        yield client.jetstream(timeout=1)
    finally:
        await client.close()


def event(wallet_id: str, version: int) -> tuple[str, bytes]:
    """Subject and payload."""
    body = {
        "type": "transfer.completed",
        "subject": wallet_id,
        "time": f"2026-11-27T10:00:0{version}Z",
        "walletversion": version,
        "data": {"type": "debit", "amount": "1.50", "wallet": {"balance": f"{version}.50"}},
    }
    return f"wallet.events.3.{wallet_id}.transfer.completed", json.dumps(body).encode()


async def fill(url: str) -> None:
    """Four events: three of a wallet, one of another."""
    async with jetstream_at(url) as jetstream:
        await jetstream.add_stream(name=STREAM, subjects=["wallet.events.>"])
        for wallet_id, version in ((WALLET, 1), (OTHER, 1), (WALLET, 2), (WALLET, 3)):
            await jetstream.publish(*event(wallet_id, version))


@pytest.fixture
async def server(own_nats: OwnNats) -> OwnNats:
    await fill(own_nats.url)
    return own_nats


async def test_the_reader_makes_a_durable_consumer_and_reads(server: OwnNats) -> None:
    async with jetstream_at(server.reader_url) as jetstream:
        await jetstream.add_consumer(
            STREAM, ConsumerConfig(durable_name="shop", ack_policy=AckPolicy.EXPLICIT)
        )
        subscription = await jetstream.pull_subscribe_bind("shop", STREAM)
        first = await subscription.fetch(3, timeout=2)
        for message in first:
            await message.ack_sync()
        rest = await subscription.fetch(5, timeout=2)

    assert [len(first), len(rest)] == [3, 1]


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda jetstream: jetstream.publish(*event(WALLET, 4)),
        lambda jetstream: jetstream.publish("wallet.relay.x.3", b"{}"),
        lambda jetstream: jetstream.purge_stream(STREAM),
        lambda jetstream: jetstream.delete_stream(STREAM),
        lambda jetstream: jetstream.delete_msg(STREAM, 1),
        lambda jetstream: jetstream.delete_consumer(STREAM, "projections"),
        lambda jetstream: jetstream.add_stream(name="OTHER", subjects=["other"]),
        lambda jetstream: jetstream.update_stream(name=STREAM, subjects=["other"]),
    ],
)
async def test_the_reader_changes_nothing(server: OwnNats, forbidden: object) -> None:
    assert callable(forbidden)
    async with jetstream_at(server.url) as jetstream:
        await jetstream.add_consumer(STREAM, ConsumerConfig(durable_name="projections"))
        before = await jetstream.stream_info(STREAM)
    async with jetstream_at(server.reader_url) as jetstream:
        with pytest.raises((NatsError, TimeoutError)):
            await forbidden(jetstream)
    async with jetstream_at(server.url) as jetstream:
        after = await jetstream.stream_info(STREAM)
        assert (after.state, after.config) == (before.state, before.config)


# -- tail ------------------------------------------------------------------------------------------


@pytest.fixture
def running(own_nats: OwnNats) -> OwnNats:
    """As `server`, for commands with an event loop of their own."""
    asyncio.run(fill(own_nats.url))
    return own_nats


def tail(server: OwnNats, options: TailOptions, tmp_path: Path) -> list[str]:
    lines: list[str] = []
    settings = Settings(_env_file=None, nats_url=server.reader_url)
    event_commands.tail(settings, StateDirectory(tmp_path / "none"), options, lines.append)
    return lines


def versions(lines: list[str]) -> list[tuple[str, int]]:
    found = [json.loads(line) for line in lines]
    return [(one["subject"], one["walletversion"]) for one in found]


def test_tail_prints_everything_that_is_stored(running: OwnNats, tmp_path: Path) -> None:
    lines = tail(running, TailOptions(as_json=True, follow=False), tmp_path)
    assert versions(lines) == [(WALLET, 1), (OTHER, 1), (WALLET, 2), (WALLET, 3)]


def test_tail_prints_one_wallet_from_a_version(running: OwnNats, tmp_path: Path) -> None:
    options = tail_options(WALLET.upper(), "2", as_json=True, follow=False)
    assert versions(tail(running, options, tmp_path)) == [(WALLET, 2), (WALLET, 3)]


def test_tail_prints_from_a_time(running: OwnNats, tmp_path: Path) -> None:
    for since, count in (("2020-01-01T00:00:00Z", 4), ("2100-01-01T00:00:00Z", 0)):
        options = tail_options("", since, as_json=True, follow=False)
        assert len(tail(running, options, tmp_path)) == count


def test_a_wrong_password_is_told_at_once(running: OwnNats, tmp_path: Path) -> None:
    host = running.url.rpartition("@")[2]
    settings = Settings(_env_file=None, nats_url=f"nats://reader:wrong@{host}")
    with pytest.raises(StackError, match="Can't connect to NATS"):
        event_commands.tail(
            settings, StateDirectory(tmp_path), TailOptions(follow=False), lambda _: None
        )


def test_a_line_fits_into_eighty_columns_but_for_the_id() -> None:
    line = line_of(event(WALLET, 3)[1])
    assert line == f"10:00:03.000  {WALLET}       3  debit 1.50 completed       3.50"


@pytest.mark.parametrize(
    ("wallet", "start", "words"),
    [
        ("shop", "", "is not the id of a wallet"),
        ("", "3", "needs --wallet"),
        (WALLET, "yesterday", "neither a version nor a time"),
    ],
)
def test_options_that_mean_nothing_are_refused(wallet: str, start: str, words: str) -> None:
    with pytest.raises(StackError, match=words):
        tail_options(wallet, start, as_json=False, follow=False)


def test_a_line_says_how_much_of_a_hold_was_completed() -> None:
    decoded = json.loads(event(WALLET, 3)[1])
    decoded["data"]["completed_amount"] = "0.40"
    assert "debit 0.40 of 1.50 completed" in line_of(json.dumps(decoded).encode())


def test_a_line_says_that_a_transfer_is_a_refund() -> None:
    decoded = json.loads(event(WALLET, 3)[1])
    decoded["data"]["refunds"] = WALLET

    assert "refund, debit 1.50 completed" in line_of(json.dumps(decoded).encode())
