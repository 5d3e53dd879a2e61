"""What a shard remembers of refunds, and what a recovery makes of lost ones."""

import msgspec
import pytest

from actors.history.recovery import APPLIED_AGAIN, GIVEN_UP, PRESENT
from actors.journal.memory import MemoryJournal
from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import ReadSet
from actors.rpc.messages import Applied, RequestResult
from tests.support.domain import make_transfer, settled, transfer_id, wallet_id
from tests.support.ids import new_id
from tests.support.results import applied, refused
from tests.support.shards import limits, shard_in_memory
from tests.support.write_side import ShardUnderTest, credit, debit, settle
from tests.support.writes import CommitRequestBuilder
from tests.unit.test_expiry_recovery import LATE, recovered, transfers_of
from wallet.commands import RefundTransfer
from wallet.ids import TransferId, WalletId
from wallet.state import Refunded, Transfer, TransferStatus, TransferType


async def refund(
    shard: ShardUnderTest, wallet: WalletId, of: str, amount: str, status: str = "completed"
) -> RequestResult:
    command = RefundTransfer(
        transfer_id=TransferId(new_id()),
        refunds=TransferId(of),
        status=status,  # type: ignore[arg-type]
        amount=amount,
    )
    return await shard.request(wallet, command, key=new_id())


async def paid(shard: ShardUnderTest) -> tuple[WalletId, Applied]:
    """A wallet from which 8 of 10 went out."""
    wallet = await shard.create_wallet()
    applied(await shard.request(wallet, debit("10")))
    return wallet, applied(await shard.request(wallet, credit("8")))


@pytest.mark.parametrize("cached", [0, 100])
async def test_two_owners_of_a_wallet_refund_a_transfer_once(cached: int) -> None:
    """INV-16 with whatever either remembers: one of them is behind at each step."""
    database = MemoryDatabase()
    few = limits(transfers_cached_max=cached)
    async with (
        shard_in_memory(MemoryJournal(database), limits=few) as one,
        shard_in_memory(MemoryJournal(database), limits=few) as other,
    ):
        wallet, out = await paid(one)
        held = applied(await refund(one, wallet, out.id, "8", "pending"))
        # The other one learns of the wallet, and the first one remembers the hold.
        assert refused(await refund(other, wallet, out.id, "1")).refusal.code == (
            "amount_exceeds_refundable"
        )
        applied(await other.request(wallet, settle(held.id, "completed")))
        again = applied(await one.request(wallet, settle(held.id, "completed")))
        assert msgspec.json.decode(again.body)["refunded_transfer"] == {
            "refunded_amount": "8.00",
            "refund_pending_amount": "0.00",
        }
        assert refused(await refund(one, wallet, out.id, "1")).refusal.code == (
            "amount_exceeds_refundable"
        )
    assert database.transfers[wallet, out.id].refunded == Refunded(800, 0)  # type: ignore[index]
    assert database.wallets[wallet].balance == 1_000


async def test_a_refund_loads_what_it_refunds_and_nothing_else() -> None:
    journal = MemoryJournal()
    async with shard_in_memory(journal) as shard:
        wallet, out = await paid(shard)
        for _ in range(3):
            applied(await refund(shard, wallet, out.id, "1"))
        asked: list[ReadSet] = []
        load = journal.load

        async def noting(missing: ReadSet, *, session: int | None = None):  # type: ignore[no-untyped-def]
            asked.append(missing)
            return await load(missing, session=session)

        journal.load = noting  # type: ignore[method-assign]
        applied(await refund(shard, wallet, out.id, "1"))
        applied(await shard.request(wallet, credit("1")))
    (missing,) = asked
    assert missing.transfers == {(wallet, out.id)}
    assert not missing.wallets


# -- recovery --------------------------------------------------------------------------------------


def refunded_history() -> tuple[CommitRequestBuilder, Transfer, Transfer]:
    """A credit, a refund of it that is pending, and the refund's end after a part."""
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    completed = TransferStatus.COMPLETED
    making.transfer(wallet.id, make_transfer(id=transfer_id(1), amount=10, status=completed))
    out = make_transfer(id=transfer_id(2), amount=8, status=completed, type=TransferType.CREDIT)
    out = making.transfer(wallet.id, out)
    held = making.transfer(wallet.id, make_transfer(id=transfer_id(3), amount=7, refunds=out.id))
    part = making.complete_part(wallet.id, held, 2)
    making.settle(wallet.id, settled(part, TransferStatus.FAILED, part=2))
    return making, out, held


def test_lost_refunds_are_made_again_after_what_they_refund() -> None:
    making, _, _ = refunded_history()
    events = making.write.events
    recovery = recovered(events[2:], events[1].wallet_after, LATE)
    assert recovery.outcomes == [APPLIED_AGAIN] * 4
    refunds = [one for one in transfers_of(recovery) if one.refunds is not None]
    assert {one.refunds for one in refunds} == {transfer_id(2)}
    last = recovery.write.events[-1].event
    assert getattr(last, "refunded", None) == Refunded(2, 0)
    assert recovery.write.wallets[wallet_id(1)].balance == 4


def test_a_lost_end_of_a_refund_is_counted_at_what_it_refunds() -> None:
    making, out, held = refunded_history()
    events = making.write.events
    known = msgspec.structs.replace(out, refunded=Refunded(0, 7))
    recovery = recovered(events[4:], events[3].wallet_after, LATE, held, known)
    assert recovery.outcomes == [APPLIED_AGAIN] * 2
    assert getattr(recovery.write.events[-1].event, "refunded", None) == Refunded(2, 0)


def test_a_refund_whose_transfer_stays_lost_is_refused() -> None:
    making, _, _ = refunded_history()
    events = making.write.events
    lost = [events[3], *events[4:]]
    recovery = recovered(lost, events[1].wallet_after, LATE)
    assert recovery.outcomes[0].startswith("transfer_not_found")
    assert set(recovery.outcomes).isdisjoint({APPLIED_AGAIN, GIVEN_UP, PRESENT})
