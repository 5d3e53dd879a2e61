"""A write side for tests: real adapters or whatever the test hands in, one loop, no Ray."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from actors.journal.ports import EventStream, Message
from actors.journal.postgres import CONNECTION_SETTINGS, PostgresJournal
from actors.journal.postgres_connection import ReconnectingConnection
from actors.outbox.jetstream import JetStream, StreamOptions
from actors.outbox.postgres import PostgresOutbox
from actors.outbox.postgres_backfill import PostgresBackfill
from actors.outbox.relay import OutboxRelay, RelayLimits
from actors.rpc.messages import RequestResult
from actors.shard.shard import Shard, ShardLimits
from tests.support.ids import new_id
from tests.support.results import applied
from tests.support.waiting import stop
from wallet.commands import (
    Command,
    CommandItem,
    CommandRequest,
    CreateTransfer,
    CreateWallet,
    Idempotency,
    SettleTransfer,
)
from wallet.ids import IdempotencyKey, TransferId, WalletId, wallet_creation_scope

LIMITS = ShardLimits(
    mailbox_commands_max=10_000,
    mailbox_wallet_commands_max=10_000,
    batch_commands_max=2_000,
    batch_wallet_commands_max=1_000,
    conflict_retries_max=20,
    wallets_cached_max=1_000,
    transfers_cached_max=1_000,
    outbox_events_max=100_000,
    database_stall_timeout_s=5.0,
)

RELAY_LIMITS = RelayLimits(
    publish_batch_max=1_000,
    outbox_memory_events_max=10_000,
    outbox_sweep_interval_s=0.2,
    partitions=4,
)


def connection(dsn: str, **settings: str) -> ReconnectingConnection:
    return ReconnectingConnection(
        dsn,
        statement_timeout_s=5.0,
        connect_timeout_s=2.0,
        settings={**CONNECTION_SETTINGS, **settings},
    )


def stream_options(url: str) -> StreamOptions:
    return StreamOptions(
        url=url,
        name="WALLET_EVENTS",
        max_age_s=0,
        duplicate_window_s=120.0,
        replicas=1,
        publish_timeout_s=2.0,
    )


class ShardUnderTest:
    """A running shard with its relay, and one-line ways to ask it for something."""

    def __init__(self, shard: Shard, relay: Any) -> None:
        self.shard = shard
        self.relay: OutboxRelay = relay  # or one that tests never ask

    async def request(
        self, wallet_id: WalletId, *commands: Command, key: str | None = None, **fields: Any
    ) -> RequestResult:
        keyed = keyed_by(key, *commands) if key is not None else None
        submission = CommandRequest(
            wallet_id=wallet_id,
            items=tuple(CommandItem(command=command, idempotency=keyed) for command in commands),
            is_batch=len(commands) > 1,
            request_id=fields.pop("request_id", new_id()),
            timeout_s=fields.pop("timeout_s", 10.0),
            **fields,
        )
        return (await self.shard.submit([submission]))[0]

    async def create_wallet(self, **fields: Any) -> WalletId:
        wallet_id = WalletId(new_id())
        made = applied(await self.request(wallet_id, create_wallet(wallet_id, **fields)))
        assert made.id == wallet_id
        return wallet_id


def keyed_by(key: str, *commands: Command) -> Idempotency:
    """A key with the fingerprint of what was asked for, ids that the service mints left out."""
    asked = [msgspec.structs.asdict(command) for command in commands]
    for fields in asked:
        fields.pop("wallet_id", None)
        if "type" in fields:
            fields.pop("transfer_id")
    return Idempotency(key=IdempotencyKey(key), fingerprint=msgspec.json.encode(asked))


def create_wallet(wallet_id: WalletId, **fields: Any) -> CreateWallet:
    values: dict[str, Any] = {"currency": "USD", "scale": 2}
    return CreateWallet(wallet_id=wallet_id, **values | fields)


def creation_scope_of(key: str) -> WalletId:
    return wallet_creation_scope(IdempotencyKey(key))


def debit(amount: str = "1", *, status: str = "completed", **fields: Any) -> CreateTransfer:
    return _transfer("debit", amount, status, fields)


def credit(amount: str = "1", *, status: str = "completed", **fields: Any) -> CreateTransfer:
    return _transfer("credit", amount, status, fields)


def _transfer(kind: str, amount: str, status: str, fields: dict[str, Any]) -> CreateTransfer:
    return CreateTransfer(
        **{"transfer_id": TransferId(new_id())}
        | {"type": kind, "amount": amount, "status": status}
        | fields
    )


def settle(transfer_id: str, status: Any, **fields: Any) -> SettleTransfer:
    return SettleTransfer(transfer_id=TransferId(transfer_id), status=status, **fields)


class DetachedRelay:
    """A relay that was cut off right after the commit: events stay in the outbox."""

    backlog = 0

    def add(self, *_: object) -> None:
        pass

    def add_from_journal(self, spans: Iterable[object]) -> None:
        pass

    def reset(self) -> None:
        pass


@asynccontextmanager
async def running_shard(
    dsn: str,
    nats_url: str | None = None,
    *,
    limits: ShardLimits = LIMITS,
    relay_limits: RelayLimits = RELAY_LIMITS,
    stream: EventStream | None = None,
    owns: Callable[[WalletId], bool] = lambda _: True,
) -> AsyncIterator[ShardUnderTest]:
    """A shard on real Postgres; with ``nats_url`` or ``stream`` its relay runs too."""
    journal = connection(dsn)
    outbox = connection(dsn, synchronous_commit="off")
    if stream is None and nats_url is not None:
        stream = JetStream(stream_options(nats_url))
    relay = OutboxRelay(
        outbox=PostgresOutbox(outbox, chores=outbox),
        stream=stream or _UnusedStream(),
        limits=relay_limits,
        owns=owns,
        refill=PostgresBackfill(outbox, stream="WALLET_EVENTS"),
    )
    shard = Shard(
        journal=PostgresJournal(journal),
        relay=relay if stream is not None else DetachedRelay(),
        limits=limits,
        now=lambda: datetime.now(UTC),
    )
    tasks = [asyncio.create_task(shard.run())]
    if stream is not None:
        tasks += [asyncio.create_task(one) for one in (relay.run(), relay.prune(), relay.sweep())]
    test = asyncio.current_task()
    assert test is not None

    def fail(task: asyncio.Task[None]) -> None:
        # In production the process ends with its task; here the test does, instead of waiting.
        if not task.cancelled():
            test.cancel(f"a task of the shard ended: {task.exception()!r}")

    for task in tasks:
        task.add_done_callback(fail)
    try:
        yield ShardUnderTest(shard, relay)
    finally:
        for task in tasks:
            task.remove_done_callback(fail)
        await stop(*tasks)
        await journal.close()
        await outbox.close()
        if isinstance(stream, JetStream):
            await stream.close()


class _UnusedStream:
    connection_epoch = 0

    async def ensure_ready(self) -> str | None:
        raise AssertionError("this shard has no stream")

    async def publish(
        self, messages: Sequence[Message], *, connection: int, incarnation: str | None
    ) -> None:
        raise AssertionError("this shard has no stream")

    async def ping(self, *, connection: int) -> None:
        raise AssertionError("this shard has no stream")
