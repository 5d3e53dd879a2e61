"""The filter of a list chooses the index that is scanned; the plans of each are tested elsewhere
(`tests/integration/test_plans_of_lists.py`)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from projections import wallet_list
from projections.queries import Queries
from projections.transfer_list import TransferFilter
from projections.wallet_list import WalletFilter
from tests.support.domain import TRANSFER_ID, WALLET_ID


def wallet_row(number: int) -> dict[str, Any]:
    """A wallet's row in a list; a larger number is an older wallet."""
    created_at = datetime(2026, 1, 31 - number, tzinfo=UTC)
    return {
        "id": str(UUID(int=number)),
        "reference_id": None,
        "currency": "USD",
        "scale": 2,
        "status": "active",
        **dict.fromkeys(("balance", "pending_debit", "pending_credit", "overdraft_limit"), "0"),
        "version": 1,
        "metadata": '{"a":"b"}',
        "created_at": created_at,
        "updated_at": created_at,
        "frozen": None,
        "frozen_reason": None,
    }


class Asked:
    """A pool that notes the statements."""

    def __init__(self, few: int = 0, rows: Sequence[Any] = ()) -> None:
        self.statements: list[str] = []
        self.arguments: tuple[object, ...] = ()
        """Of the last statement."""
        self.scanned: list[object] = []
        """Rows that each statement scans at most, of lists of wallets."""
        self._few = few
        self._rows = list(rows)

    async def fetch(self, sql: str, *arguments: object) -> list[Any]:
        self.statements.append(sql)
        self.arguments = arguments
        self.scanned.append(arguments[4] if len(arguments) > 4 else None)
        return self._rows

    async def fetchrow(self, sql: str, *_: object) -> Any:
        return [self._few] if "count(*)" in sql else None


@pytest.mark.parametrize(
    ("index", "wanted"),
    [
        ("all", TransferFilter()),
        ("all", TransferFilter(metadata={"a": "b"})),
        ("all", TransferFilter(amount_min="1", amount_max="2")),
        ("status", TransferFilter(status="failed")),
        ("status", TransferFilter(type="debit", amount_min="1", amount_max="2")),
        ("amount", TransferFilter(amount_min="1", amount_max="1", status="failed")),
        ("reference", TransferFilter(reference_id="a", amount_min="1", amount_max="1")),
        ("reference", TransferFilter(reference_id="a", type="debit")),
        ("refunds", TransferFilter(refunds=TRANSFER_ID, reference_id="a", status="failed")),
    ],
)
async def test_a_list_of_transfers_scans_the_index_for_its_filter(
    index: str, wanted: TransferFilter
) -> None:
    pool: Any = Asked(few=1_001)
    queries = Queries(pool, timeout_s=1.0)

    assert await queries.transfers(WALLET_ID, wanted, limit=5, cursor=None) is None

    lists = queries.transfer_lists
    assert pool.statements == [lists.projected[index].page, lists.written]


@pytest.mark.parametrize(("found", "index"), [(1_000, "amounts"), (1_001, "status")])
async def test_transfers_of_few_amounts_are_sorted_and_others_scanned(
    found: int, index: str
) -> None:
    pool: Any = Asked(few=found)
    queries = Queries(pool, timeout_s=1.0)

    wanted = TransferFilter(amount_max="2", status="failed", metadata={"a": "b"})
    await queries.transfers(WALLET_ID, wanted, limit=5, cursor=None)

    assert pool.statements[0] == queries.transfer_lists.projected[index].page


@pytest.mark.parametrize(
    ("index", "wanted"),
    [
        ("age", WalletFilter()),
        ("age", WalletFilter(status="active")),
        ("currency", WalletFilter(currency="USD")),
        ("currency", WalletFilter(currency="USD", status="active")),
        ("status", WalletFilter(currency="USD", status="frozen")),
        ("status", WalletFilter(status="closed")),
    ],
)
async def test_a_list_of_wallets_scans_the_index_for_its_filter(
    index: str, wanted: WalletFilter
) -> None:
    pool: Any = Asked()
    lists = Queries(pool, timeout_s=1.0).wallet_lists

    await lists.page(wanted, limit=5, cursor=None, strong=False)
    await lists.page(wanted, limit=5, cursor=None, strong=True)

    assert pool.statements == [lists.projected[index].page, lists.written.page]


@pytest.mark.parametrize(("found", "is_sorted"), [(1_000, True), (1_001, False)])
async def test_wallets_with_a_rare_prefix_are_sorted_and_others_scanned(
    found: int, is_sorted: bool
) -> None:
    pool: Any = Asked(few=found)
    lists = Queries(pool, timeout_s=1.0).wallet_lists

    wanted = WalletFilter(reference_id_prefix="a", currency="USD")
    await lists.page(wanted, limit=5, cursor=None, strong=False)

    expected = lists.prefixed if is_sorted else lists.projected["currency"].page
    assert pool.statements == [expected]


@pytest.mark.parametrize(("found", "is_sorted"), [(1_000, True), (1_001, False)])
async def test_wallets_with_rare_metadata_are_sorted_and_others_scanned(
    found: int, is_sorted: bool
) -> None:
    pool: Any = Asked(few=found)
    lists = Queries(pool, timeout_s=1.0).wallet_lists

    wanted = WalletFilter(metadata={"a": "b"}, status="frozen")
    await lists.page(wanted, limit=5, cursor=None, strong=False)

    page = lists.projected["status"].page
    # A short scan first: what is common is found by it.
    assert pool.statements == [page, lists.with_metadata if is_sorted else page]
    assert pool.scanned == [1_000, 20_000]


async def test_wallets_with_common_metadata_are_found_by_a_short_scan() -> None:
    pool: Any = Asked(rows=[wallet_row(number) for number in range(6)])
    lists = Queries(pool, timeout_s=1.0).wallet_lists

    found = await lists.page(WalletFilter(metadata={"a": "b"}), limit=5, cursor=None, strong=False)

    assert (len(found.wallets), found.next_cursor is None) == (5, False)
    assert (pool.statements, pool.scanned) == ([lists.projected["age"].page], [1_000])


async def test_a_list_of_older_wallets_begins_at_their_time() -> None:
    pool: Any = Asked()
    lists = Queries(pool, timeout_s=1.0).wallet_lists
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    cursor = wallet_list._encode_cursor((early, UUID(int=7)))

    for before, after, expected in (
        (late, None, (late, UUID(int=0))),
        (late, cursor, (early, UUID(int=7))),
        (early, cursor, (early, UUID(int=0))),
    ):
        wanted = WalletFilter(created_before=before)
        await lists.page(wanted, limit=5, cursor=after, strong=False)
        assert pool.arguments[:2] == expected
