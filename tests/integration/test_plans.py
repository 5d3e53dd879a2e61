"""Every statement over a list has one plan, whatever the statistics say of its tables.

Postgres plans with the statistics of the last ANALYZE. For a new table they say: empty. A plan that
is good for an empty table scans the whole list for each row of a full one.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from actors.dispatch.ring import ring_of
from actors.journal.ports import CommitRequest, EventRange, ReadSet, StoredAnswer, StreamMark
from actors.journal.postgres import PostgresJournal
from actors.outbox.postgres import PostgresOutbox
from projections.auditor import Auditor
from projections.projection_process import CONNECTION_SETTINGS as PROJECTION_SETTINGS
from projections.store import (
    BalanceRow,
    ProjectionChanges,
    ProjectionStore,
    TransferRow,
    WalletRow,
)
from tests.support.beliefs import BELIEFS, believe
from tests.support.domain import make_transfer, settled, transfer_id, wallet_id
from tests.support.plans import plans_of
from tests.support.write_side import connection
from tests.support.writes import CommitRequestBuilder
from wallet.ids import IdempotencyKey, TransferId, WalletId
from wallet.state import TransferStatus

WALLETS = [wallet_id(number) for number in range(40)]
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class DatabaseFixture:
    """The write side and the read side of one database, each with its own connections."""

    def __init__(self, database: str) -> None:
        self.shard = connection(database)
        self.relay = connection(database, **PostgresOutbox.SETTINGS)
        self.journal = PostgresJournal(self.shard)
        self.outbox = PostgresOutbox(self.relay, chores=self.relay)
        self.projecting: Any = None
        """A pool of one connection, so that its settings persist."""

    async def opened(self, database: str) -> "DatabaseFixture":
        self.projecting = await asyncpg.connect(database, server_settings=PROJECTION_SETTINGS)
        await self.journal.commit(make_first_write())
        return self

    async def close(self) -> None:
        await self.shard.close()
        await self.relay.close()
        await self.projecting.close()

    async def shard_plans(self, work: Callable[[], Awaitable[Any]]) -> list[str]:
        await self.shard.read(lambda inner: inner.fetchval("SELECT 1"))
        assert self.shard._connection is not None
        return await plans_of(self.shard._connection, work)

    async def relay_plans(self, work: Callable[[], Awaitable[Any]]) -> list[str]:
        await self.relay.read(lambda inner: inner.fetchval("SELECT 1"))
        assert self.relay._connection is not None
        return await plans_of(self.relay._connection, work)

    async def projection_plans(self, work: Callable[[], Awaitable[Any]]) -> list[str]:
        return await plans_of(self.projecting, work)


@pytest_asyncio.fixture(params=BELIEFS)
async def fixture(request: pytest.FixtureRequest, database: str) -> AsyncIterator[DatabaseFixture]:
    await believe(database, request.param)
    made = await DatabaseFixture(database).opened(database)
    yield made
    await made.close()


HELD = make_transfer(status=TransferStatus.PENDING)


def held_of(wallet: WalletId) -> TransferId:
    return transfer_id(1_000 + WALLETS.index(wallet))


def make_first_write() -> CommitRequest:
    """Wallets with a pending transfer and an idempotency key each."""
    making = CommitRequestBuilder()
    for wallet in WALLETS:
        making.create(wallet, reference_id=f"reference of {wallet}")
        making.transfer(wallet, msgspec.structs.replace(HELD, id=held_of(wallet)))
        making.key(wallet, "key", make_answer())
    return making.write


def make_answer() -> StoredAnswer:
    return StoredAnswer(fingerprint=b"f", request_id="r", refused=False, answer=b"{}", version=1)


async def test_every_statement_over_a_list_looks_up_by_key(fixture: DatabaseFixture) -> None:
    for statements in (
        _loading,
        _reading_a_backlog,
        _deleting_outbox_rows,
        _sweeping,
        _projecting,
        _catching_up,
        _auditing,
        _committing,
    ):
        await statements(fixture)


# The allowed plans: an index lookup per list element, never a list scan per row.

_LIST = "Function Scan"


def by_key(*indexes: str) -> str:
    """A nested loop over the list, with one lookup per index."""
    shape = _LIST
    for index in indexes:
        shape = f"Nested Loop ({shape}, {index})"
    return shape


async def _loading(fixture: DatabaseFixture) -> None:
    transfers = {(wallet, held_of(wallet)) for wallet in WALLETS}
    missing = ReadSet(
        wallets=set(WALLETS),
        transfers=transfers,
        created_transfers=transfers,
        keys={(wallet, IdempotencyKey("key")) for wallet in WALLETS},
        references={f"reference of {wallet}" for wallet in WALLETS},
    )
    plans = await fixture.shard_plans(lambda: fixture.journal.load(missing))
    transfer = "Index Scan transfers_pkey transfers"
    assert plans == [
        "Index Scan wallet_references_pkey wallet_references",
        "Nested Loop (Nested Loop (Function Scan, Index Scan wallets_pkey wallets), "
        "Aggregate (Index Scan outbox_pkey outbox), "
        "Index Only Scan forked_wallets_pkey forked_wallets)",
        by_key(transfer),
        by_key(
            "Limit (Append (Index Scan idempotency_keys_pkey idempotency_keys, "
            "Index Scan recovered_keys_pkey recovered_keys))"
        ),
        by_key(
            transfer,
            "Index Scan wallet_events_pkey wallet_events",
            "Index Scan wallets_pkey wallets",
        ),
        by_key("Index Scan refused_deliveries_pkey refused_deliveries"),
    ]


async def _committing(fixture: DatabaseFixture) -> None:
    loaded = await fixture.journal.load(ReadSet(wallets=set(WALLETS)))
    making = CommitRequestBuilder(*loaded.wallets.values())
    making.create(wallet_id(999), reference_id="another")
    for wallet in WALLETS[1:20]:
        held = msgspec.structs.replace(HELD, id=held_of(wallet), created_version=2)
        making.settle(wallet, settled(held, TransferStatus.COMPLETED))
        making.key(wallet, "another key", make_answer())
    for number, wallet in enumerate(WALLETS[20:]):
        making.refuse(wallet, transfer_id(5_000 + number))
    plans = await fixture.shard_plans(lambda: fixture.journal.commit(making.write))
    scan = "Index Scan wallets_pkey wallets"
    assert plans == [
        "Result (Index Only Scan forked_wallets_pkey forked_wallets)",
        f"LockRows ({scan})",
        f"ModifyTable wallets ({by_key(scan)})",
        f"Result (Aggregate ({by_key(scan)}))",
        "Result (Index Only Scan refused_deliveries_pkey refused_deliveries)",
        f"ModifyTable wallet_references (Sort ({_LIST}))",
        f"ModifyTable wallets ({_LIST})",
        f"ModifyTable wallet_events ({_LIST})",
        f"ModifyTable transfers ({_LIST})",
        f"ModifyTable outbox ({_LIST})",
        f"ModifyTable transfers ({by_key('Index Scan transfers_pkey transfers')})",
        f"ModifyTable idempotency_keys ({_LIST})",
        f"ModifyTable refused_deliveries (Sort ({_LIST}))",
    ]
    # Once wallets have stored refusals, each new transfer is looked up among them.
    making = CommitRequestBuilder(
        *(await fixture.journal.load(ReadSet(wallets=set(WALLETS)))).wallets.values()
    )
    for number, one in enumerate(WALLETS):
        making.transfer(one, make_transfer(id=transfer_id(7_000 + number)))
    plans = await fixture.shard_plans(lambda: fixture.journal.commit(making.write))
    refused = "Index Only Scan refused_deliveries_pkey refused_deliveries"
    assert plans[3:5] == [f"Result ({refused})", f"Aggregate ({by_key(refused)})"]


async def _reading_a_backlog(fixture: DatabaseFixture) -> None:
    event_ranges = [EventRange(wallet, 1, 2) for wallet in WALLETS]
    plans = await fixture.relay_plans(lambda: fixture.outbox.read(event_ranges))
    (plan,) = plans
    assert "Index Scan wallet_events_pkey wallet_events" in plan
    assert f"Nested Loop ({_LIST}, Index Scan wallets_pkey wallets)" in plan


async def _deleting_outbox_rows(fixture: DatabaseFixture) -> None:
    event_ranges = [EventRange(wallet, 1, 2) for wallet in WALLETS]
    deletion = (
        f"ModifyTable outbox (Nested Loop ({_LIST}, Subquery Scan (LockRows "
        "(Index Scan outbox_pkey outbox))), Tid Scan outbox)"
    )
    mark = StreamMark("incarnation", 7, lowest=5)
    (plan,) = await fixture.relay_plans(lambda: fixture.outbox.delete(event_ranges, mark=mark))
    marks = f"Subquery Scan (Nested Loop (Aggregate (CTE Scan), {_LIST}))"
    assert plan == f"ModifyTable stream_marks ({deletion}, {marks})"
    assert await fixture.outbox.unpublished(limit=10_000) == [
        row
        for row in await fixture.outbox.unpublished(limit=10_000)
        if row.wallet_id not in WALLETS
    ]


async def _sweeping(fixture: DatabaseFixture) -> None:
    plans = await fixture.relay_plans(
        lambda: fixture.outbox.unpublished(
            limit=1_000, slots=ring_of(6).slots_of(5), older_than_s=60.0
        )
    )
    scan = "Index Scan outbox_by_slot outbox"
    # The row itself may be found by either index: both have its whole key.
    plans = [plan.replace("outbox_pkey", "outbox_by_slot") for plan in plans]
    listed = f"Limit (ProjectSet ({_LIST}), {scan})"
    pages = f"Limit (Merge Append (Sort (Limit ({scan})), {listed}))"
    assert plans == [f"Incremental Sort (Nested Loop (WindowAgg ({pages}), {scan}))"]


async def _projecting(fixture: DatabaseFixture) -> None:
    loaded = (await fixture.journal.load(ReadSet(wallets=set(WALLETS)))).wallets
    making = CommitRequestBuilder(*[loaded[wallet] for wallet in SETTLED])
    for one in SETTLED:
        held = msgspec.structs.replace(HELD, id=held_of(one), created_version=2)
        making.settle(one, settled(held, TransferStatus.COMPLETED))
    await fixture.journal.commit(making.write)
    last = (await fixture.journal.load(ReadSet(wallets=set(WALLETS)))).wallets
    hashes = [{wallet: found.hash for wallet, found in each.items()} for each in (loaded, last)]
    store = ProjectionStore(fixture.projecting)
    plans = await fixture.projection_plans(lambda: _project(store, *hashes))
    wallet = "Index Scan wallet_projections_pkey wallet_projections"
    transfer = "Index Scan transfer_projections_pkey transfer_projections"
    # Both of the table's indexes begin with the wallet and cost the same until its first
    # autoanalyze, which is at 50 rows.
    plans = [
        plan.replace("transfer_projections_in_order", "transfer_projections_pkey") for plan in plans
    ]
    modified = [plan for plan in plans if plan.startswith("ModifyTable")]
    assert sorted(modified) == sorted(
        [
            f"ModifyTable wallet_projections ({_LIST})",
            f"ModifyTable wallet_projections ({wallet})",
            f"ModifyTable transfer_projections ({_LIST})",
            f"ModifyTable transfer_projections ({transfer})",
        ]
    )
    lookups = [plan for plan in plans if not plan.startswith("ModifyTable")]
    recorded = f"Sort ({by_key('Index Scan wallet_events_pkey wallet_events')})"
    assert recorded in lookups
    assert all("Nested Loop" not in one or one == recorded for one in lookups)
    assert not [one for one in lookups if "Seq" in one or "Join" in one]
    # A repetition, a gap and a lost history are looked up by key, too.
    plans = await fixture.projection_plans(lambda: _project_refused(store, hashes[1]))
    rare = [plan for plan in plans if "Result" in plan or "LockRows" in plan]
    assert len(rare) == 2
    assert not [one for one in plans if "Seq" in one or "Join" in one]


SETTLED = WALLETS[20:]


Hashes = dict[WalletId, bytes]


async def _project_refused(store: ProjectionStore, hashes: Hashes) -> None:
    again, ahead, lost = SETTLED[:3]
    balances = [
        BalanceRow(again, 3, 3, "0", "0", "0", NOW, b"", hashes[again]),
        BalanceRow(ahead, 5, 5, "0", "0", "0", NOW, b"", hashes[ahead]),
        BalanceRow(lost, 3, 3, "0", "0", "0", NOW, b"", bytes(16)),
    ]
    batch = ProjectionChanges(wallets=[], balances=balances, transfers=[])
    assert [one.reason for one in await store.project(batch)] == ["lost_events", "lost_events"]


async def _project(store: ProjectionStore, hashes: Hashes, last: Hashes) -> None:
    balances = [
        BalanceRow(wallet, 1, 2, "0", "0", "0", NOW, bytes(16), hashes[wallet])
        for wallet in WALLETS
    ]
    transfers = [
        TransferRow(
            wallet, held_of(wallet), "debit", "pending", "1", None, None, None, NOW, None, 2, 2
        )
        for wallet in WALLETS
    ]
    wallets = [WalletRow(wallet, None, "USD", 2, "active", None, NOW) for wallet in WALLETS]
    batch = ProjectionChanges(wallets=wallets, balances=balances, transfers=transfers)
    assert await store.project(batch) == []
    settlements = [
        TransferRow(
            wallet, held_of(wallet), "debit", "completed", "1", None, None, None, NOW, NOW, None, 3
        )
        for wallet in SETTLED
    ]
    moved = [
        BalanceRow(wallet, 3, 3, "0", "0", "0", NOW, hashes[wallet], last[wallet])
        for wallet in SETTLED
    ]
    batch = ProjectionChanges(wallets=[], balances=moved, transfers=settlements)
    assert await store.project(batch) == []


async def _catching_up(fixture: DatabaseFixture) -> None:
    making = CommitRequestBuilder(
        *(await fixture.journal.load(ReadSet(wallets={WALLETS[0]}))).wallets.values()
    )
    held = msgspec.structs.replace(HELD, id=held_of(WALLETS[0]), created_version=2)
    making.settle(WALLETS[0], settled(held, TransferStatus.COMPLETED))
    await fixture.journal.commit(making.write)
    store = ProjectionStore(fixture.projecting)
    plans = await fixture.projection_plans(lambda: store.catch_up(WALLETS[0]))
    assert not [plan for plan in plans if "Join" in plan or "Nested Loop" in plan or "Seq" in plan]


async def _auditing(fixture: DatabaseFixture) -> None:
    plans = await fixture.projection_plans(lambda: Auditor(fixture.projecting).check_next_page())
    for plan in plans:
        assert "Seq Scan" not in plan or "projection_dead_letters" in plan, plan
        assert "Hash" not in plan, plan
        assert "Merge" not in plan, plan
