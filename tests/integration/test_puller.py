"""Pull requests to a real server: every message once, in order, with bounded requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from projections.pull_subscription import PullEnded, PullSubscription
from tests.support.waiting import until, until_true

STREAM = "PULLED"
BATCH_MAX = 10


@asynccontextmanager
async def pulling(
    nats_url: str, *, poll_s: float = 5.0
) -> AsyncIterator[tuple[Client, PullSubscription]]:
    """A stream of numbers and its pull subscription."""
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name=STREAM, subjects=["numbers"])
    await jetstream.add_consumer(
        STREAM,
        ConsumerConfig(
            durable_name="reader", ack_policy=AckPolicy.ALL, max_ack_pending=2 * BATCH_MAX
        ),
    )
    puller = PullSubscription(
        client, stream=STREAM, consumer="reader", batch_max=BATCH_MAX, poll_s=poll_s
    )
    await puller.open()
    try:
        yield client, puller
    finally:
        await puller.close()
        await jetstream.delete_stream(STREAM)
        await client.close()


async def publish(client: Client, *numbers: int) -> None:
    for number in numbers:
        await client.publish("numbers", str(number).encode())
    await client.flush()


async def asks(client: Client) -> bool:
    """Whether the server has an open request."""
    info = await client.jetstream().consumer_info(STREAM, "reader")
    return bool(info.num_waiting)


async def test_everything_comes_once_and_in_order_while_nobody_waits(nats_url: str) -> None:
    async with pulling(nats_url) as (client, puller):
        await publish(client, *range(100))
        found: list[int] = []
        while len(found) < 100:
            taken = await puller.fetch()
            assert len(taken) <= BATCH_MAX
            found += [int(message.data) for message in taken]
            await taken[-1].ack()
        assert found == list(range(100))
        assert puller.pending == 0


async def test_what_comes_during_a_request_is_taken_at_once(nats_url: str) -> None:
    async with pulling(nats_url, poll_s=60.0) as (client, puller):
        for number in range(3):
            waiting = asyncio.create_task(puller.fetch())
            await until_true(lambda: asks(client))
            await publish(client, number)
            async with asyncio.timeout(5):
                assert [int(message.data) for message in await waiting] == [number]


async def test_the_server_sends_while_a_batch_is_projected_up_to_the_limit(
    nats_url: str,
) -> None:
    async with pulling(nats_url) as (client, puller):
        await publish(client, *range(100))
        taken = 0
        while taken < BATCH_MAX:
            taken += len(await puller.fetch())
        # Nothing consumes messages from here on.
        await until(lambda: puller.pending_on_server == 100 - 2 * BATCH_MAX)
        assert not await asks(client)
        assert puller.pending == 100 - BATCH_MAX


async def test_a_request_that_brought_nothing_says_so_and_leaves_none_behind(
    nats_url: str,
) -> None:
    async with pulling(nats_url, poll_s=0.05) as (client, puller):
        for _ in range(5):
            assert await puller.fetch() == []
        assert not await asks(client)
        await publish(client, 7)
        taken: list[int] = []
        while not taken:
            taken = [int(message.data) for message in await puller.fetch()]
        assert taken == [7]


async def test_a_consumer_that_is_removed_ends_it(nats_url: str) -> None:
    async with pulling(nats_url) as (client, puller):
        waiting = asyncio.create_task(puller.fetch())
        await until_true(lambda: asks(client))
        await client.jetstream().delete_consumer(STREAM, "reader")
        with pytest.raises(PullEnded, match="Consumer Deleted"):
            await asyncio.wait_for(waiting, 5)


async def test_a_consumer_that_is_not_there_ends_it(nats_url: str) -> None:
    async with pulling(nats_url) as (client, puller):
        await client.jetstream().delete_consumer(STREAM, "reader")
        with pytest.raises(PullEnded):
            await asyncio.wait_for(puller.fetch(), 5)
