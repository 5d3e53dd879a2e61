"""An event that can't be applied is dead-lettered with its reason; the others are processed."""

import asyncpg
import nats

from projections.dead_letters import list_dead_letters, replay
from projections.store import ProjectionStore
from runtime.settings import Settings
from tests.integration.test_projection_crash import consumer, options, run_until_projected, written
from tests.support.published import wait_for_messages
from tests.support.write_side import debit, running_shard
from wallet.ids import WalletId


async def test_a_poison_event_stops_nothing_and_is_kept(database: str, nats_url: str) -> None:
    wanted = await written(database, nats_url, wallets=3)
    client = await nats.connect(nats_url)
    await client.jetstream().publish(
        "wallet.events.0.nobody.transfer.pending", b'{"not": "an event"}'
    )
    await client.close()
    wallet_id = WalletId(next(iter(wanted)))
    async with running_shard(database, nats_url) as shard:
        await shard.request(wallet_id, debit())
        await wait_for_messages(nats_url, 8)
    wanted[wallet_id] = 3
    async with consumer(database, nats_url, ProjectionStore, options(batch_max=100)) as reader:
        await run_until_projected([reader], database, wanted)
        assert reader.dead_letters == 1
    settings = Settings(database_url=database)
    (letter,) = await list_dead_letters(settings)
    assert letter.payload == b'{"not": "an event"}'
    assert "ValidationError" in letter.reason
    assert await replay(settings) == (0, 1), "it is still poison and still a dead letter"


async def test_an_event_under_another_wallet_s_subject_is_dead_lettered(
    database: str, nats_url: str
) -> None:
    wanted = await written(database, nats_url, wallets=1)
    client = await nats.connect(nats_url)
    message = await client.jetstream().get_msg("WALLET_EVENTS", seq=2)
    await client.jetstream().publish("wallet.events.0.nobody.wallet.created", message.data)
    await client.close()
    (wallet_id,) = wanted
    async with running_shard(database, nats_url) as shard:
        await shard.request(WalletId(wallet_id), debit())
        await wait_for_messages(nats_url, 4)
    async with consumer(database, nats_url, ProjectionStore, options(batch_max=100)) as reader:
        await run_until_projected([reader], database, {wallet_id: 3})
        assert reader.dead_letters == 1
    (letter,) = await list_dead_letters(Settings(database_url=database))
    assert "EventMismatch" in letter.reason


async def test_a_dead_letter_that_can_be_applied_now_is_applied(
    database: str, nats_url: str
) -> None:
    wanted = await written(database, nats_url, wallets=1)
    async with consumer(database, nats_url, ProjectionStore, options()) as reader:
        await run_until_projected([reader], database, wanted)
    client = await nats.connect(nats_url)
    message = await client.jetstream().get_msg("WALLET_EVENTS", seq=2)
    await client.close()
    connection = await asyncpg.connect(database)
    await connection.execute(
        "INSERT INTO projection_dead_letters VALUES (2, 'e', $1, $2, 'a bug, fixed by now', 3)",
        message.subject,
        message.data,
    )
    await connection.close()
    assert await replay(Settings(database_url=database)) == (1, 0)
    assert await list_dead_letters(Settings(database_url=database)) == []
