"""During an upgrade, a relay of release 0.1.0 publishes events of this release's shards, too."""

import msgspec
import nats
import pytest

from tests.support.read_side import running_consumer, until_equal
from tests.support.results import applied
from tests.support.waiting import until
from tests.support.write_side import debit, running_shard
from verification.chain import EventChain
from verification.cloud_events import decode_message
from verification.stream_rules import check_chain, is_of_release_0_1
from verification.violations import ViolationKind

_HASHES = ("hash", "previoushash", "keydigest")


async def _published_as_by_0_1(nats_url: str) -> tuple[str, str, bytes]:
    """Subject, id and body of the last event, published again as release 0.1.0 does."""
    client = await nats.connect(nats_url)
    try:
        message = await client.jetstream().get_last_msg("WALLET_EVENTS", "wallet.events.>")
        event = msgspec.json.decode(message.data or b"")
        event["id"] = f"{event['subject']}:{event['walletversion']}"
        body = msgspec.json.encode({name: event[name] for name in event.keys() - set(_HASHES)})
        headers = {"Nats-Msg-Id": event["id"]}
        subject = message.subject or ""
        await client.jetstream().publish(subject, body, headers=headers)
    finally:
        await client.close()
    return subject, event["id"], body


@pytest.mark.parametrize("is_behind", [False, True])
async def test_its_copy_of_an_event_is_no_lost_history(
    database: str, nats_url: str, is_behind: bool
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet = await shard.create_wallet()
        applied(await shard.request(wallet, debit("3")))
        await until(lambda: shard.relay.backlog == 0)
        if is_behind:
            await _published_as_by_0_1(nats_url)
        async with running_consumer(database, nats_url) as consumer:
            await until_equal(database)
            if not is_behind:
                before = consumer.gaps
                await _published_as_by_0_1(nats_url)
                await until(lambda: consumer.gaps > before)
            applied(await shard.request(wallet, debit("4")))
            await until_equal(database)
            assert consumer.lost_histories == 0


async def test_the_checker_knows_its_copies(database: str, nats_url: str) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet = await shard.create_wallet()
        applied(await shard.request(wallet, debit("3")))
        await until(lambda: shard.relay.backlog == 0)
        subject, event_id, body = await _published_as_by_0_1(nats_url)
    recorded = EventChain(hash=b"h" * 16, previous_hash=b"p" * 16, key_digest=b"")
    copy = decode_message(1, event_id, subject, body)
    assert is_of_release_0_1(copy, recorded)
    assert list(check_chain(copy, recorded)) == []
    # Not under another id, and not with a hash.
    for other in (
        msgspec.structs.replace(copy, message_id=f"{event_id}:{'68' * 16}"),
        msgspec.structs.replace(copy, hash="ab" * 16),
    ):
        found = {one.kind for one in check_chain(other, recorded)}
        assert ViolationKind.STREAM_HASH_WRONG in found
