"""Corrupt read-side rows fail an assertion on read, and invalid rows are not written."""

from collections.abc import Sequence
from typing import Any, cast

import asyncpg
import msgspec
import pytest

from projections.changes import project_events
from projections.queries import Queries
from projections.store import ProjectionChanges, ProjectionStore, Reason, RefusedWallet
from projections.transfer_list import TransferFilter
from tests.support.domain import (
    NOW,
    OTHER_WALLET_ID,
    TRANSFER_ID,
    WALLET_ID,
    changed,
    created,
    make_transfer,
    make_wallet,
    settled,
    transfer_id,
)
from wallet.event_codec import decode_envelope, encode_event
from wallet.state import TransferStatus

WALLET = {
    "id": WALLET_ID,
    "reference_id": None,
    "currency": "USD",
    "scale": 2,
    "status": "active",
    "balance": "0",
    "pending_debit": "0",
    "pending_credit": "0",
    "version": 5,
    "metadata": None,
    "created_at": NOW,
    "updated_at": NOW,
    "overdraft_limit": "0",
    "frozen": None,
    "frozen_reason": None,
}
TRANSFER = {
    "id": TRANSFER_ID,
    "type": "debit",
    "status": "pending",
    "amount": "100",
    "currency": "USD",
    "scale": 2,
    "reference_id": None,
    "metadata": None,
    "failure_reason": None,
    "created_at": NOW,
    "settled_at": None,
    "expires_at": None,
    "on_expiry": None,
    "refunds": None,
    "refunded_amount": None,
    "refund_pending_amount": None,
    "completed_amount": None,
    "created_version": 2,
    "version": 5,
}


class Rows:
    """A pool that returns these rows for every query."""

    def __init__(self, *rows: Any) -> None:
        self.rows = rows
        self.asked = 0

    async def fetch(self, *_: object) -> Sequence[Any]:
        self.asked += 1
        return self.rows

    async def fetchrow(self, *_: object) -> Any:
        return self.rows[0]


def queries_on(*rows: dict[str, Any]) -> Queries:
    return Queries(cast("asyncpg.Pool", Rows(*rows)), timeout_s=1.0)


async def read_page(*rows: dict[str, Any], cursor: str | None = None) -> list[str]:
    page = await queries_on(*rows).transfers(WALLET_ID, TransferFilter(), limit=9, cursor=cursor)
    assert page is not None
    return [one.id for one in page.items]


@pytest.mark.parametrize(
    ("fields", "invariant"),
    [
        ({"version": 0}, "INV-10"),
        ({"pending_debit": "-1"}, "INV-2"),
        ({"pending_credit": "-1"}, "INV-2"),
    ],
)
async def test_a_damaged_wallet_is_not_shown(fields: dict[str, Any], invariant: str) -> None:
    assert await queries_on(WALLET).wallet(WALLET_ID) is not None
    with pytest.raises(AssertionError, match=invariant):
        await queries_on(WALLET | fields).wallet(WALLET_ID, strong=True)


@pytest.mark.parametrize("fields", [{"settled_at": NOW}, {"status": "failed"}])
async def test_a_damaged_transfer_is_not_shown(fields: dict[str, Any]) -> None:
    assert await queries_on(TRANSFER).transfer(WALLET_ID, TRANSFER_ID) is not None
    with pytest.raises(AssertionError, match="INV-4"):
        await queries_on(TRANSFER | fields).transfer(WALLET_ID, TRANSFER_ID)


async def test_a_page_is_in_order_and_within_its_bounds() -> None:
    newer, older = TRANSFER | {"created_version": 4}, TRANSFER | {"created_version": 3}
    assert await read_page(newer, older) == [TRANSFER_ID, TRANSFER_ID]
    for rows in ((older, newer), (older, older)):
        with pytest.raises(AssertionError, match="INV-10"):
            await read_page(*rows)
    with pytest.raises(AssertionError, match="INV-10"):
        await read_page(newer, cursor="AAAAAAAAAAM")  # After the third.
    with pytest.raises(AssertionError, match="INV-11"):
        await read_page(TRANSFER | {"created_version": 6})


def projected() -> ProjectionChanges:
    """A creation, a transfer, and the settlement of one from before."""
    earlier = settled(make_transfer(id=transfer_id(9)), TransferStatus.FAILED)
    recorded = (
        created(make_wallet(version=1)),
        changed(make_transfer(), make_wallet(version=2)),
        changed(earlier, make_wallet(version=3), previous=TransferStatus.PENDING),
    )
    return project_events([decode_envelope(encode_event(one)) for one in recorded])


_CREATED, _SETTLED = 0, 1
"""Positions of the transfers in it."""


async def test_projected_rows_are_written() -> None:
    pool = Rows((WALLET_ID, "gap"))
    refused = await ProjectionStore(cast("asyncpg.Pool", pool)).project(projected())
    assert refused == [RefusedWallet(WALLET_ID, Reason.GAP)]


@pytest.mark.parametrize(
    ("kind", "index", "fields"),
    [
        ("balances", 0, {"first_version": 4}),
        ("balances", 0, {"first_version": 0}),
        ("balances", 0, {"last_version": 1}),
        ("transfers", _CREATED, {"created_version": 3}),
        ("transfers", _CREATED, {"version": 4}),
        ("transfers", _SETTLED, {"version": 4}),
    ],
)
async def test_rows_that_go_back_or_ahead_are_not_written(
    kind: str, index: int, fields: dict[str, int]
) -> None:
    batch, pool = projected(), Rows()
    rows = getattr(batch, kind)
    rows[index] = msgspec.structs.replace(rows[index], **fields)
    with pytest.raises(AssertionError, match="INV-11"):
        await ProjectionStore(cast("asyncpg.Pool", pool)).project(batch)
    assert pool.asked == 0


async def test_a_wallet_moves_once_a_batch() -> None:
    batch = projected()
    batch.balances = [*batch.balances, *batch.balances]
    with pytest.raises(AssertionError, match="INV-11 a wallet moves once"):
        await ProjectionStore(cast("asyncpg.Pool", Rows())).project(batch)


async def test_a_gap_of_a_wallet_that_was_not_projected_is_a_bug() -> None:
    pool = Rows((OTHER_WALLET_ID, "gap"))
    with pytest.raises(AssertionError, match="INV-11 a gap"):
        await ProjectionStore(cast("asyncpg.Pool", pool)).project(projected())
