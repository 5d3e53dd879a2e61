"""A lost stream is created again and backfilled from the journal, in order."""

import asyncio

import msgspec
import nats
import pytest

from actors.journal.ports import Message, PublishFailed
from actors.outbox import jetstream
from actors.outbox.jetstream import JetStream
from tests.support.published import (
    STREAM,
    first_occurrences,
    versions_by_wallet,
    wait_for_events,
)
from tests.support.write_side import ShardUnderTest, debit, running_shard, stream_options
from wallet.ids import WalletId


async def delete_stream(url: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().delete_stream(STREAM)
    await client.close()


async def write(shard: ShardUnderTest, wallets: list[WalletId], times: int) -> None:
    for _ in range(times):
        await asyncio.gather(*(shard.request(wallet_id, debit()) for wallet_id in wallets))


async def test_a_deleted_stream_is_backfilled_before_new_events(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallets = [await shard.create_wallet() for _ in range(3)]
        await write(shard, wallets, times=5)
        await wait_for_events(nats_url, 18)
        await delete_stream(nats_url)
        await write(shard, wallets, times=5)
        events = await wait_for_events(nats_url, 33)
    by_wallet = versions_by_wallet(first_occurrences(events))
    assert by_wallet == {wallet_id: list(range(1, 12)) for wallet_id in wallets}


async def test_a_stream_lost_without_a_running_shard_is_backfilled_by_the_next(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet_id = await shard.create_wallet()
        await write(shard, [wallet_id], times=4)
        await wait_for_events(nats_url, 5)
    await delete_stream(nats_url)
    async with running_shard(database, nats_url):
        events = await wait_for_events(nats_url, 5)
    assert versions_by_wallet(first_occurrences(events)) == {wallet_id: [1, 2, 3, 4, 5]}


async def test_a_stream_that_was_never_lost_is_not_backfilled_twice(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet_id = await shard.create_wallet()
        await write(shard, [wallet_id], times=4)
        await wait_for_events(nats_url, 5)
    async with running_shard(database, nats_url) as successor:
        await write(successor, [wallet_id], times=1)
        events = await wait_for_events(nats_url, 6)
    assert [event.walletversion for event in events] == [1, 2, 3, 4, 5, 6]


def make_message(number: int) -> Message:
    return Message(f"wallet.events.1.wallet.{number}", f"wallet:{number}", b"{}")


async def subjects(url: str) -> list[str]:
    """Ids of the stream's messages, in order."""
    client = await nats.connect(url)
    try:
        subscription = await client.jetstream().subscribe("", stream=STREAM, ordered_consumer=True)
        found = []
        while True:
            found.append((await subscription.next_msg(timeout=1)).subject)
    except TimeoutError:
        return found
    finally:
        await client.close()


async def test_a_publish_to_a_deleted_stream_does_not_reach_its_successor(
    nats_url: str,
) -> None:
    one, other = JetStream(stream_options(nats_url)), JetStream(stream_options(nats_url))
    lost = (await one.ensure_ready()).incarnation
    await one.publish([make_message(8)], connection=one.connection_epoch, incarnation=lost)
    await delete_stream(nats_url)

    made = (await other.ensure_ready()).incarnation
    for _ in range(
        2
    ):  # It has not noticed the loss, and reading the state does not make it notice.
        with pytest.raises(PublishFailed):
            await one.publish([make_message(9)], connection=one.connection_epoch, incarnation=lost)
    first = [make_message(1), make_message(2)]
    await other.publish(first, connection=other.connection_epoch, incarnation=made)
    with pytest.raises(PublishFailed):
        await one.publish([make_message(9)], connection=one.connection_epoch, incarnation=lost)

    assert (await one.ensure_ready()).incarnation == made
    with pytest.raises(PublishFailed):
        await one.publish([make_message(9)], connection=one.connection_epoch, incarnation=lost)
    await one.publish([make_message(3)], connection=one.connection_epoch, incarnation=made)
    assert await subjects(nats_url) == [make_message(number).subject for number in (1, 2, 3)]
    await one.close()
    await other.close()


async def test_an_update_that_was_on_its_way_lets_nobody_into_the_next_stream(
    nats_url: str,
) -> None:
    one, other = JetStream(stream_options(nats_url)), JetStream(stream_options(nats_url))
    lost = (await one.ensure_ready()).incarnation
    client = await nats.connect(nats_url)
    late = (await client.jetstream().stream_info(STREAM)).config
    await delete_stream(nats_url)
    made = (await other.ensure_ready()).incarnation
    # As the service updates it: with a subject that no publisher uses.
    update = jetstream._config(stream_options(nats_url))
    assert update.subjects != late.subjects
    await client.jetstream().update_stream(update)
    with pytest.raises(PublishFailed):
        await one.publish([make_message(9)], connection=one.connection_epoch, incarnation=lost)
    with pytest.raises(PublishFailed):
        await other.publish([make_message(1)], connection=other.connection_epoch, incarnation=made)
    assert (await other.ensure_ready()).incarnation == made
    await other.publish([make_message(1)], connection=other.connection_epoch, incarnation=made)
    assert await subjects(nats_url) == [make_message(1).subject]
    for connection in (one, other, client):
        await connection.close()


async def test_readers_find_the_stream_by_its_subjects(nats_url: str) -> None:
    stream = JetStream(stream_options(nats_url))
    await stream.ensure_ready()
    client = await nats.connect(nats_url)
    found = await client.jetstream().find_stream_name_by_subject("wallet.events.>")
    assert found == STREAM
    await client.close()
    await stream.close()


async def test_a_stream_of_a_former_version_is_given_an_entrance(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    made = await client.jetstream().add_stream(
        name=STREAM, subjects=["wallet.events.>"], allow_batched=True
    )
    stream = JetStream(stream_options(nats_url))
    incarnation = (await stream.ensure_ready()).incarnation
    assert incarnation == str(made.created)
    await client.jetstream().publish(make_message(1).subject, b"{}")  # by a shard of that version
    await stream.publish(
        [make_message(2)], connection=stream.connection_epoch, incarnation=incarnation
    )
    assert await subjects(nats_url) == [make_message(1).subject, make_message(2).subject]
    await client.close()
    await stream.close()


async def test_limits_are_brought_up_to_date_and_what_is_there_stays(nats_url: str) -> None:
    stream = JetStream(stream_options(nats_url))
    made = (await stream.ensure_ready()).incarnation
    await stream.publish([make_message(1)], connection=stream.connection_epoch, incarnation=made)
    options = stream_options(nats_url)
    changed = JetStream(msgspec.structs.replace(options, max_age_s=3_600.0))
    assert (await changed.ensure_ready()).incarnation == made
    client = await nats.connect(nats_url)
    config = (await client.jetstream().stream_info(STREAM)).config
    await client.close()
    assert config.max_age == 3_600
    await changed.publish([make_message(2)], connection=changed.connection_epoch, incarnation=made)
    assert await subjects(nats_url) == [make_message(1).subject, make_message(2).subject]
    await changed.close()
    await stream.close()
