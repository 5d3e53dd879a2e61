"""A stream that lost messages without being deleted is noticed, and filled again in order."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec
import nats
import pytest
from nats.js import JetStreamContext

from actors.journal.ports import Message, PublishFailed
from actors.outbox import jetstream_purge, sweep
from actors.outbox.jetstream import JetStream
from actors.outbox.stream_loss import StreamLoss
from tests.support.databases import execute, outbox_rows, until_outbox_is_empty
from tests.support.own_nats import OwnNats
from tests.support.published import (
    STREAM,
    events_on_stream,
    first_occurrences,
    versions_by_wallet,
    wait_for_events,
    wait_for_messages,
)
from tests.support.waiting import until, until_true
from tests.support.write_side import ShardUnderTest, debit, running_shard, stream_options
from wallet.ids import WalletId


@pytest.fixture(autouse=True)
def _frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_STREAM_CHECK_INTERVAL_S", 0.2)


@asynccontextmanager
async def jetstream(url: str) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def write(shard: ShardUnderTest, wallets: Sequence[WalletId], times: int) -> None:
    for _ in range(times):
        await asyncio.gather(*(shard.request(wallet, debit()) for wallet in wallets))


async def versions(url: str) -> dict[str, list[int]]:
    """The versions of each wallet in stream order, without duplicates."""
    return versions_by_wallet(first_occurrences(await events_on_stream(url)))


def fills(shard: ShardUnderTest) -> dict[str, int]:
    """Of a stream that had lost something; a new one may have been filled with the first events."""
    counts = shard.relay.stream_fills
    return {loss.value: n for loss, n in counts.items() if n and loss is not StreamLoss.NEW}


async def test_a_store_put_back_from_a_copy_gets_what_it_lost_first(
    database: str, own_nats: OwnNats
) -> None:
    async with running_shard(database, own_nats.url) as shard:
        wallets = [await shard.create_wallet() for _ in range(3)]
        await write(shard, wallets[:2], times=2)
        await until_outbox_is_empty(database)
        own_nats.stop()
        own_nats.keep()
        own_nats.start()
        await write(shard, wallets[1:], times=3)
        late = await shard.create_wallet()
        await until_outbox_is_empty(database)

        own_nats.lose_power()
        own_nats.start()
        assert await outbox_rows(database) == 0, "no row tells what is lost"
        await write(shard, wallets, times=1)
        events = await wait_for_events(own_nats.url, 17)
        await until_outbox_is_empty(database)
        assert fills(shard) == {"rolledback": 1}
    assert versions_by_wallet(events) == {
        wallets[0]: [1, 2, 3, 4],
        wallets[1]: [1, 2, 3, 4, 5, 6, 7],
        wallets[2]: [1, 2, 3, 4, 5],
        late: [1],
    }


async def test_a_store_put_back_while_no_shard_runs_is_noticed_by_the_next(
    database: str, own_nats: OwnNats
) -> None:
    async with running_shard(database, own_nats.url) as shard:
        wallet = await shard.create_wallet()
        await until_outbox_is_empty(database)
        own_nats.stop()
        own_nats.keep()
        own_nats.start()
        await write(shard, [wallet], times=3)
        await until_outbox_is_empty(database)
    own_nats.lose_power()
    own_nats.start()
    async with running_shard(database, own_nats.url):
        events = await wait_for_events(own_nats.url, 4)
    assert versions_by_wallet(events) == {wallet: [1, 2, 3, 4]}


async def test_two_relays_that_notice_at_once_fill_it_once(
    database: str, own_nats: OwnNats
) -> None:
    async with (
        running_shard(database, own_nats.url) as one,
        running_shard(database, own_nats.url, slots=()) as other,
    ):
        wallets = [await one.create_wallet(), await other.create_wallet()]
        await until_outbox_is_empty(database)
        own_nats.stop()
        own_nats.keep()
        own_nats.start()
        await asyncio.gather(write(one, wallets[:1], 5), write(other, wallets[1:], 5))
        await until_outbox_is_empty(database)

        own_nats.lose_power()
        own_nats.start()
        await asyncio.gather(write(one, wallets[:1], 2), write(other, wallets[1:], 2))
        events = await wait_for_events(own_nats.url, 16)
        await until_outbox_is_empty(database)
        total = [*fills(one).items(), *fills(other).items()]
    assert total == [("rolledback", 1)]
    assert versions_by_wallet(first_occurrences(events)) == {
        wallet: list(range(1, 9)) for wallet in wallets
    }


async def test_a_purge_is_noticed_and_consumers_get_everything_again(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard, jetstream(nats_url) as stream:
        wallets = [await shard.create_wallet() for _ in range(2)]
        await write(shard, wallets, times=3)
        await until_outbox_is_empty(database)
        consumer = await stream.pull_subscribe("wallet.events.>", durable="outside", stream=STREAM)
        await (await consumer.fetch(1))[0].ack()

        await stream.purge_stream(STREAM)
        await write(shard, wallets, times=1)
        await until(lambda: fills(shard) == {"purged": 1}, timeout_s=10.0)
        await wait_for_messages(nats_url, 10)
        assert await versions(nats_url) == {wallet: [1, 2, 3, 4, 5] for wallet in wallets}
        assert len(await consumer.fetch(20, timeout=2)) == 10
        info = await stream.stream_info(STREAM)
    assert info.state.first_seq > 8, "the sequences continue"
    assert info.config.duplicate_window == 120.0


async def test_a_fill_waits_until_purged_ids_are_forgotten(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_purge, "_PASSED_S", 0.0)
    relay = JetStream(stream_options(nats_url))
    before = await relay.ensure_ready()
    connection = relay.connection_epoch
    message = Message(f"wallet.events.0.{uuid4()}.test", str(uuid4()), b"{}")
    await relay.publish([message], connection=connection, incarnation=before.incarnation)
    begun = await relay.begin_fill("test", connection=connection, purge=True)
    again = await relay.publish([message], connection=connection, incarnation=begun.incarnation)
    await relay.close()
    assert again == begun.last_sequence + 1, "stored, although a purged message had its id"


async def test_a_purge_while_no_shard_runs_is_noticed_by_the_next(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet = await shard.create_wallet()
        await write(shard, [wallet], times=3)
        await until_outbox_is_empty(database)
    async with jetstream(nats_url) as stream:
        await stream.purge_stream(STREAM)
    async with running_shard(database, nats_url) as shard:
        await write(shard, [wallet], times=1)
        await wait_for_messages(nats_url, 5)
        assert await versions(nats_url) == {wallet: [1, 2, 3, 4, 5]}


async def test_expired_messages_are_not_taken_for_a_purge(database: str, nats_url: str) -> None:
    options = msgspec.structs.replace(
        stream_options(nats_url), max_age_s=1.0, duplicate_window_s=0.5
    )
    async with (
        running_shard(database, nats_url, stream=JetStream(options)) as shard,
        jetstream(nats_url) as stream,
    ):
        wallet = await shard.create_wallet()
        await write(shard, [wallet], times=3)
        await until_outbox_is_empty(database)

        async def is_empty() -> bool:
            return not (await stream.stream_info(STREAM)).state.messages

        await until_true(is_empty)
        await write(shard, [wallet], times=1)
        await until_outbox_is_empty(database)
        await asyncio.sleep(0.6)  # Several checks.
        assert fills(shard) == {}
        assert (await stream.stream_info(STREAM)).state.last_seq == 5


async def test_a_purge_of_one_subject_is_not_noticed(database: str, nats_url: str) -> None:
    async with running_shard(database, nats_url) as shard, jetstream(nats_url) as stream:
        first, purged = [await shard.create_wallet() for _ in range(2)]
        await write(shard, [first, purged], times=2)
        await until_outbox_is_empty(database)
        await stream.purge_stream(STREAM, subject=f"wallet.events.*.{purged}.>")
        await asyncio.sleep(0.6)  # Several checks.
        assert fills(shard) == {}
        remaining = (await stream.stream_info(STREAM)).state.messages
    assert remaining == 3, "verify --stream finds it"


def make_message(wallet: str, version: int) -> Message:
    payload = f'{{"walletversion":{version}}}'.encode()
    return Message(f"wallet.events.1.{wallet}.created", f"{wallet}:{version}", payload)


async def test_nobody_publishes_to_the_incarnation_before_a_fill(nats_url: str) -> None:
    one, other = JetStream(stream_options(nats_url)), JetStream(stream_options(nats_url))
    known = (await one.ensure_ready()).incarnation
    await other.ensure_ready()
    begun = await other.begin_fill("purged", connection=other.connection_epoch, purge=False)
    assert begun.incarnation != known
    with pytest.raises(PublishFailed):
        await one.publish(
            [make_message("a", 1)], connection=one.connection_epoch, incarnation=known
        )
    assert (await one.ensure_ready()).incarnation == begun.incarnation
    sequence = await one.publish(
        [make_message("a", 1)], connection=one.connection_epoch, incarnation=begun.incarnation
    )
    assert sequence == 1
    await one.close()
    await other.close()


async def test_a_purge_makes_the_server_forget_the_ids(nats_url: str) -> None:
    stream = JetStream(stream_options(nats_url))
    known = (await stream.ensure_ready()).incarnation
    messages = [make_message("a", version) for version in (1, 2)]
    connection = stream.connection_epoch
    assert await stream.publish(messages, connection=connection, incarnation=known) == 2
    assert await stream.publish(messages, connection=connection, incarnation=known) == 2
    begun = await stream.begin_fill("purged", connection=connection, purge=True)
    assert (begun.first_sequence, begun.last_sequence) == (3, 2)
    sequence = await stream.publish(messages, connection=connection, incarnation=begun.incarnation)
    assert sequence == 4
    await stream.close()


async def test_a_changed_limit_keeps_the_name_of_the_fill(nats_url: str) -> None:
    stream = JetStream(stream_options(nats_url))
    await stream.ensure_ready()
    begun = await stream.begin_fill("new", connection=stream.connection_epoch, purge=False)
    longer = msgspec.structs.replace(stream_options(nats_url), max_age_s=7_200.0)
    shorter = msgspec.structs.replace(stream_options(nats_url), max_age_s=3_600.0)
    for options in (shorter, longer):
        changed = JetStream(options)
        found = await changed.ensure_ready()
        assert found.incarnation == begun.incarnation
        assert found.max_age_s == 3_600.0, "messages may have expired by the shorter one"
        await changed.close()
    await stream.close()


async def test_the_last_payload_of_each_wallet_is_found(nats_url: str) -> None:
    stream = JetStream(stream_options(nats_url))
    known = (await stream.ensure_ready()).incarnation
    await stream.publish(
        [make_message("a", 1), make_message("b", 1), make_message("a", 2)],
        connection=stream.connection_epoch,
        incarnation=known,
    )
    wallets = [WalletId(one) for one in ("a", "c", "b")]
    assert await stream.last_payloads(wallets) == [
        b'{"walletversion":2}',
        None,
        b'{"walletversion":1}',
    ]
    await stream.close()


async def test_marks_of_another_incarnation_tell_nothing(database: str, nats_url: str) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet = await shard.create_wallet()
        await until_outbox_is_empty(database)
        execute(
            database,
            "INSERT INTO stream_marks SELECT stream, 'another', 1000, acknowledged_at, max_age_s, "
            "since FROM stream_marks LIMIT 1",
        )
        await asyncio.sleep(0.6)  # Several checks.
        await write(shard, [wallet], times=1)
        await until_outbox_is_empty(database)
        assert fills(shard) == {}
