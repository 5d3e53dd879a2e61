"""Expiries, parts and refunds are written by key, and expiries found by time, whatever the
statistics of their tables say."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from actors.dispatch.ring import ring_of
from actors.journal.expiry_ports import ExpiringTransfer
from actors.journal.ports import ReadSet
from actors.journal.postgres_expiries import PostgresExpiries
from tests.integration.test_plans import NOW, WALLETS, DatabaseFixture, by_key
from tests.support.beliefs import BELIEFS, believe
from tests.support.domain import make_transfer, settled, transfer_id
from tests.support.writes import CommitRequestBuilder
from wallet.state import Expiry, TransferStatus, TransferType


@pytest_asyncio.fixture(params=BELIEFS)
async def fixture(request: pytest.FixtureRequest, database: str) -> AsyncIterator[DatabaseFixture]:
    await believe(database, request.param)
    made = await DatabaseFixture(database).opened(database)
    yield made
    await made.close()


async def test_expiries_are_written_by_key(fixture: DatabaseFixture) -> None:
    loaded = await fixture.journal.load(ReadSet(wallets=set(WALLETS)))
    making = CommitRequestBuilder(*loaded.wallets.values())
    for number, wallet in enumerate(WALLETS):
        held = make_transfer(id=transfer_id(9_000 + number), expiry=Expiry(NOW))
        done = making.transfer(wallet, held)
        if number % 2:
            making.settle(wallet, settled(done, TransferStatus.COMPLETED))
    plans = await fixture.shard_plans(lambda: fixture.journal.commit(making.write))
    row = "Index Scan transfer_expiries_pkey transfer_expiries"
    assert [plan for plan in plans if "transfer_expiries" in plan] == [
        "ModifyTable transfer_expiries (Function Scan)",
        f"ModifyTable transfer_expiries ({by_key(row)}, Tid Scan transfer_expiries)",
    ]


async def test_what_is_due_is_found_by_time(fixture: DatabaseFixture) -> None:
    expiries = PostgresExpiries(fixture.relay)
    slots = ring_of(6).slots_of(5)
    after = ExpiringTransfer(NOW, WALLETS[3], transfer_id(9_003))
    by_time = "Limit (Index Only Scan transfer_expiries_by_time transfer_expiries)"
    due = await fixture.relay_plans(
        lambda: expiries.due(until=NOW, limit=10, slots=slots, after=after, without=WALLETS[:2])
    )
    following = await fixture.relay_plans(lambda: expiries.next_expiry(slots=slots))
    assert due == following == [by_time]


async def test_a_batch_without_expiries_does_nothing_about_them(fixture: DatabaseFixture) -> None:
    loaded = await fixture.journal.load(ReadSet(wallets=set(WALLETS)))
    making = CommitRequestBuilder(*loaded.wallets.values())
    for number, wallet in enumerate(WALLETS):
        held = making.transfer(wallet, make_transfer(id=transfer_id(9_000 + number)))
        making.settle(wallet, settled(held, TransferStatus.COMPLETED))
    plans = await fixture.shard_plans(lambda: fixture.journal.commit(making.write))
    assert plans
    assert not [plan for plan in plans if "expiries" in plan]


async def test_parts_are_written_by_key(fixture: DatabaseFixture) -> None:
    loaded = await fixture.journal.load(ReadSet(wallets=set(WALLETS)))
    making = CommitRequestBuilder(*loaded.wallets.values())
    for number, wallet in enumerate(WALLETS):
        held = make_transfer(id=transfer_id(9_000 + number), amount=9)
        for part in (1, 2):
            held = making.complete_part(
                wallet, making.transfer(wallet, held) if part == 1 else held, part
            )
    plans = await fixture.shard_plans(lambda: fixture.journal.commit(making.write))
    (update,) = [
        plan for plan in plans if plan.startswith("ModifyTable transfers (") and "pkey" in plan
    ]
    last = "Subquery Scan (Unique (Sort (Function Scan)))"
    row = "Index Scan transfers_pkey transfers"
    assert update == f"ModifyTable transfers (Nested Loop ({last}, {row}))"


async def test_refunds_are_counted_by_key(fixture: DatabaseFixture) -> None:
    loaded = await fixture.journal.load(ReadSet(wallets=set(WALLETS)))
    making = CommitRequestBuilder(*loaded.wallets.values())
    for number, wallet in enumerate(WALLETS):
        paid = make_transfer(id=transfer_id(9_000 + number), status=TransferStatus.COMPLETED)
        making.transfer(wallet, paid)
        back = make_transfer(
            id=transfer_id(9_500 + number), type=TransferType.CREDIT, refunds=paid.id
        )
        making.transfer(wallet, back)
    plans = await fixture.shard_plans(lambda: fixture.journal.commit(making.write))
    (update,) = [
        plan for plan in plans if plan.startswith("ModifyTable transfers (") and "pkey" in plan
    ]
    last = "Subquery Scan (Unique (Sort (Function Scan)))"
    row = "Index Scan transfers_pkey transfers"
    assert update == f"ModifyTable transfers (Nested Loop ({last}, {row}))"
