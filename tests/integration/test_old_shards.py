"""During an upgrade, shards of earlier releases write to the same database."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from actors.dispatch.ring import ring_of
from actors.journal import postgres_chain
from actors.journal.ports import EventRange, JournalConflict, ReadSet
from actors.journal.postgres import PostgresJournal
from actors.journal.postgres_columns import commit_arguments
from actors.journal.postgres_expiries import PostgresExpiries
from actors.outbox.postgres import PostgresOutbox
from tests.support.domain import LATER, make_transfer, settled, transfer_id, wallet_id
from tests.support.write_side import connection
from tests.support.writes import CommitRequestBuilder, make_answer
from wallet.commands import FreezeWallet
from wallet.ids import WalletId
from wallet.state import Expiry, Transfer, TransferStatus, TransferType, Wallet

_WITH_PARTS, _RELEASED, _LATEST, _PREVIOUS, _BEFORE = 52, 48, 45, 40, 36
"""Parameters of `commit_batch` in releases before this one."""

_SWEEP_BY_KEY = """
SELECT wallet_id::text, first_version, last_version FROM outbox o
WHERE (wallet_id, first_version) > ($1::uuid, $2::bigint)
    AND (created_at + make_interval(secs => $3) <= statement_timestamp() OR EXISTS (
        SELECT FROM outbox later
        WHERE later.wallet_id = o.wallet_id AND later.first_version > o.first_version
            AND later.created_at + make_interval(secs => $3) <= statement_timestamp()
    ))
ORDER BY o.wallet_id, o.first_version LIMIT $4
"""
"""The sweep of the previous release."""

_CHAIN_COLUMNS = (7, 8, 30, 31, 32)
"""Parameters that only the latest of them had."""

_WALLET_COLUMNS = range(1, 7)
_NEW_WALLET_COLUMNS = range(7, 12)


def commit_sql(parameters: int) -> str:
    return f"SELECT commit_batch({', '.join(f'${n}' for n in range(1, parameters + 1))})"


def as_an_old_shard_sends_it(making: CommitRequestBuilder, parameters: int) -> list[object]:
    """The parameters that it knows. The oldest sends wallets in another order than by id."""
    if parameters in (_WITH_PARTS, _RELEASED, _LATEST):
        return list(commit_arguments(making.write)[:parameters])
    sent = enumerate(commit_arguments(making.write))
    arguments = [one for number, one in sent if number not in _CHAIN_COLUMNS][:parameters]
    for number in (*_WALLET_COLUMNS, *_NEW_WALLET_COLUMNS) if parameters == _BEFORE else ():
        column = arguments[number]
        assert isinstance(column, list)
        arguments[number] = column[::-1]
    return arguments


async def commit_as_an_old_shard(
    database: str, making: CommitRequestBuilder, parameters: int = _PREVIOUS
) -> None:
    old = await asyncpg.connect(database)
    try:
        arguments = as_an_old_shard_sends_it(making, parameters)
        await old.execute(commit_sql(parameters), *arguments)
    finally:
        await old.close()


@pytest.fixture
async def journal(database: str) -> AsyncIterator[PostgresJournal]:
    inner = connection(database)
    yield PostgresJournal(inner)
    await inner.close()


@pytest.mark.parametrize("parameters", [_LATEST, _PREVIOUS, _BEFORE])
async def test_a_batch_of_an_old_shard_is_written_as_it_was_meant(
    database: str, journal: PostgresJournal, parameters: int
) -> None:
    first = CommitRequestBuilder()
    kept = first.create(wallet_id(5), reference_id="five")
    await journal.commit(first.write)

    making = CommitRequestBuilder(kept)
    for number in (9, 1, 7):
        made = making.create(wallet_id(number), reference_id=f"r{number}", number=str(number))
        done = make_transfer(id=transfer_id(number), amount=number, status=TransferStatus.COMPLETED)
        making.transfer(made.id, done)
    making.transfer(kept.id, make_transfer(id=transfer_id(5)))
    making.key(kept.id, "k", make_answer())
    await commit_as_an_old_shard(database, making, parameters)

    # The hashes, too: they are computed over what the old shard wrote.
    wallets = {wallet_id(number) for number in (1, 5, 7, 9)}
    assert (await journal.load(ReadSet(wallets=wallets))).wallets == making.write.wallets


@pytest.mark.parametrize("parameters", [_LATEST, _PREVIOUS, _BEFORE])
async def test_an_old_shard_does_not_write_what_was_refused_for_good(
    database: str, journal: PostgresJournal, parameters: int
) -> None:
    first = CommitRequestBuilder()
    wallet = first.create(wallet_id(5))
    await journal.commit(first.write)
    refusal = CommitRequestBuilder(wallet)
    refusal.refuse(wallet.id, transfer_id(1))
    await journal.commit(refusal.write)

    late = CommitRequestBuilder(wallet)
    late.transfer(wallet.id, make_transfer(id=transfer_id(1)))
    with pytest.raises(asyncpg.PostgresError, match="refused for good"):
        await commit_as_an_old_shard(database, late, parameters)


@pytest.mark.parametrize("parameters", [_RELEASED, _LATEST, _PREVIOUS, _BEFORE])
async def test_an_old_shard_does_not_settle_what_expires(
    database: str, journal: PostgresJournal, parameters: int
) -> None:
    first = CommitRequestBuilder()
    wallet = first.create(wallet_id(5))
    expiring = make_transfer(id=transfer_id(1), expiry=Expiry(LATER))
    held = first.transfer(wallet.id, expiring)
    other = first.transfer(wallet.id, make_transfer(id=transfer_id(2)))
    await journal.commit(first.write)

    wallet = first.write.wallets[wallet.id]
    late = CommitRequestBuilder(wallet)
    late.settle(wallet.id, settled(held, TransferStatus.COMPLETED))
    with pytest.raises(asyncpg.PostgresError, match="settled already"):
        await commit_as_an_old_shard(database, late, parameters)
    usual = CommitRequestBuilder(wallet)
    usual.settle(wallet.id, settled(other, TransferStatus.COMPLETED))
    await commit_as_an_old_shard(database, usual, parameters)
    reader = connection(database)
    assert await PostgresExpiries(reader).next_expiry() == LATER
    await reader.close()


@pytest.mark.parametrize("parameters", [_RELEASED, _LATEST, _PREVIOUS, _BEFORE])
async def test_an_old_shard_does_not_settle_what_is_completed_in_part(
    database: str, journal: PostgresJournal, parameters: int
) -> None:
    first = CommitRequestBuilder()
    wallet = first.create(wallet_id(5))
    held = first.transfer(wallet.id, make_transfer(id=transfer_id(1), amount=9))
    first.complete_part(wallet.id, held, 4)
    await journal.commit(first.write)

    # It knows nothing of the part, and would move all of it.
    late = CommitRequestBuilder(first.write.wallets[wallet.id])
    late.settle(wallet.id, settled(make_transfer(id=held.id, amount=5), TransferStatus.COMPLETED))
    with pytest.raises(asyncpg.PostgresError, match="settled already"):
        await commit_as_an_old_shard(database, late, parameters)


@pytest.mark.parametrize("parameters", [_WITH_PARTS, _RELEASED, _LATEST, _PREVIOUS, _BEFORE])
async def test_an_old_shard_does_not_settle_a_refund(
    database: str, journal: PostgresJournal, parameters: int
) -> None:
    first = CommitRequestBuilder()
    wallet = first.create(wallet_id(5))
    paid = first.transfer(wallet.id, completed(1))
    first.transfer(wallet.id, make_transfer(id=transfer_id(2), amount=9))
    back = make_transfer(id=transfer_id(3), amount=1, type=TransferType.CREDIT, refunds=paid.id)
    held = first.transfer(wallet.id, back)
    await journal.commit(first.write)

    # It would not count the refund at what it refunds.
    late = CommitRequestBuilder(first.write.wallets[wallet.id])
    unlinked = msgspec.structs.replace(held, refunds=None)
    late.settle(wallet.id, settled(unlinked, TransferStatus.FAILED))
    with pytest.raises(asyncpg.PostgresError, match="settled already"):
        await commit_as_an_old_shard(database, late, parameters)


@pytest.mark.parametrize("parameters", [_LATEST, _PREVIOUS])
async def test_an_old_shard_s_event_is_published_again_as_it_was(
    database: str, parameters: int
) -> None:
    making = CommitRequestBuilder()
    made = making.create(wallet_id(5), note="n")
    making.transfer(made.id, completed(1))
    await commit_as_an_old_shard(database, making, parameters)
    inner = connection(database)
    try:
        (events,) = await PostgresOutbox(inner, chores=inner).read([EventRange(made.id, 1, 2)])
    finally:
        await inner.close()
    added = {"effect", "overdraft_limit", "frozen", "frozen_reason"}
    for one in events:
        assert not added & msgspec.json.decode(one.body).keys()


async def test_an_old_shard_s_write_leaves_the_control_as_it_is(
    database: str, journal: PostgresJournal
) -> None:
    first = CommitRequestBuilder()
    wallet = first.create(wallet_id(5), overdraft_limit=700)
    first.control(wallet.id, FreezeWallet(direction="both", reason="lost"))
    await journal.commit(first.write)
    making = CommitRequestBuilder(first.write.wallets[wallet.id])
    making.transfer(wallet.id, completed(1))
    await commit_as_an_old_shard(database, making, _LATEST)
    loaded = (await journal.load(ReadSet(wallets={wallet.id}))).wallets
    assert loaded == making.write.wallets


@pytest.mark.parametrize("parameters", [_LATEST, _PREVIOUS, _BEFORE])
@pytest.mark.parametrize("direction", ["debit", "credit"])
async def test_an_old_shard_refuses_nothing_where_one_direction_is_frozen(
    database: str, journal: PostgresJournal, parameters: int, direction: Any
) -> None:
    first = CommitRequestBuilder()
    frozen, other = first.create(wallet_id(5)), first.create(wallet_id(6))
    first.control(frozen.id, FreezeWallet(direction=direction, reason="lost"))
    await journal.commit(first.write)

    # To it the wallet looks frozen in both directions: it would refuse either, under a key.
    late = CommitRequestBuilder(first.write.wallets[frozen.id], first.write.wallets[other.id])
    late.key(frozen.id, "k", make_answer())
    late.transfer(other.id, completed(1))
    with pytest.raises(asyncpg.PostgresError) as conflict:
        await commit_as_an_old_shard(database, late, parameters)
    assert (conflict.value.sqlstate, conflict.value.as_dict()["detail"]) == ("WV001", frozen.id)


@pytest.mark.parametrize("parameters", [_LATEST, _PREVIOUS])
async def test_an_old_shard_repeats_no_answer_about_a_part(
    database: str, journal: PostgresJournal, parameters: int
) -> None:
    first = CommitRequestBuilder()
    wallet, other = first.create(wallet_id(5)), first.create(wallet_id(6))
    held = first.transfer(wallet.id, make_transfer(id=transfer_id(1), amount=9))
    first.complete_part(wallet.id, held, 4)
    await journal.commit(first.write)

    usual = CommitRequestBuilder(first.write.wallets[wallet.id], first.write.wallets[other.id])
    usual.transfer(wallet.id, completed(2))
    await commit_as_an_old_shard(database, usual, parameters)
    repetition = CommitRequestBuilder(*usual.write.wallets.values())
    repetition.write.confirm = True
    with pytest.raises(asyncpg.PostgresError) as conflict:
        await commit_as_an_old_shard(database, repetition, parameters)
    assert (conflict.value.sqlstate, conflict.value.as_dict()["detail"]) == ("WV001", wallet.id)


@pytest.mark.parametrize("parameters", [_RELEASED, _LATEST, _PREVIOUS, _BEFORE])
async def test_what_an_old_shard_can_not_settle_names_its_wallet(
    database: str, journal: PostgresJournal, parameters: int
) -> None:
    first = CommitRequestBuilder()
    wallet, other = first.create(wallet_id(5)), first.create(wallet_id(6))
    expiring = first.transfer(wallet.id, make_transfer(id=transfer_id(1), expiry=Expiry(LATER)))
    usual = first.transfer(other.id, make_transfer(id=transfer_id(2)))
    await journal.commit(first.write)

    both = CommitRequestBuilder(first.write.wallets[wallet.id], first.write.wallets[other.id])
    both.settle(wallet.id, settled(expiring, TransferStatus.COMPLETED))
    both.settle(other.id, settled(usual, TransferStatus.COMPLETED))
    with pytest.raises(asyncpg.PostgresError) as conflict:
        await commit_as_an_old_shard(database, both, parameters)
    assert (conflict.value.sqlstate, conflict.value.as_dict()["detail"]) == ("WV002", wallet.id)


async def test_old_and_new_shards_write_one_wallet_in_turn(
    database: str, journal: PostgresJournal
) -> None:
    wallet = await wallet_of_an_old_shard(database, events=3)
    for number in range(10, 14):
        loaded = (await journal.load(ReadSet(wallets={wallet.id}))).wallets[wallet.id]
        assert loaded == wallet
        making = CommitRequestBuilder(loaded)
        making.transfer(wallet.id, completed(number))
        if number % 2:
            await commit_as_an_old_shard(database, making)
        else:
            await journal.commit(making.write)
        wallet = making.write.wallets[wallet.id]


async def test_a_lost_history_of_an_old_shard_s_wallet_is_a_conflict(
    database: str, journal: PostgresJournal
) -> None:
    wallet = await wallet_of_an_old_shard(database, events=1)
    making = CommitRequestBuilder(wallet)
    making.transfer(wallet.id, completed(10))
    await journal.commit(making.write)
    lost = CommitRequestBuilder(
        msgspec.structs.replace(making.write.wallets[wallet.id], hash=bytes(16))
    )
    lost.transfer(wallet.id, completed(11))
    with pytest.raises(JournalConflict):
        await journal.commit(lost.write)


async def test_a_long_history_is_linked_page_by_page(
    database: str, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_chain, "EVENTS_PER_PAGE", 3)
    wallet = await wallet_of_an_old_shard(database, events=9)
    loaded = await journal.load(ReadSet(wallets={wallet.id}))
    assert loaded.wallets[wallet.id] == wallet
    # Full pages are stored: a load that is cut off continues there.
    assert await linked_versions(database) == [9]


async def test_migration_links_every_wallet_that_lacks_its_hash(
    database: str, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_chain, "EVENTS_PER_PAGE", 3)
    wallets = [await wallet_of_an_old_shard(database, events=4, number=n) for n in (1, 2, 3)]
    old = await asyncpg.connect(database)
    after: WalletId | None = wallet_id(0)
    while after is not None:
        after = await postgres_chain.link_wallets(old, after=after, limit=2)
    stored = await old.fetch("SELECT hash, hash_version FROM wallets ORDER BY id")
    await old.close()
    assert [tuple(row) for row in stored] == [(one.hash, one.version) for one in wallets]


def completed(number: int) -> Transfer:
    return make_transfer(id=transfer_id(number), amount=1, status=TransferStatus.COMPLETED)


async def wallet_of_an_old_shard(database: str, *, events: int, number: int = 1) -> Wallet:
    """A wallet with one completed debit per event after its creation."""
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(number))
    for of_wallet in range(events):
        making.transfer(wallet.id, completed(100 * number + of_wallet))
    await commit_as_an_old_shard(database, making)
    return making.write.wallets[wallet.id]


async def linked_versions(database: str) -> list[int]:
    reader = await asyncpg.connect(database)
    try:
        return [row[0] for row in await reader.fetch("SELECT hash_version FROM wallets")]
    finally:
        await reader.close()


async def test_a_sweep_of_an_old_shard_finds_the_rows_of_all_slots(
    database: str, journal: PostgresJournal
) -> None:
    making = CommitRequestBuilder()
    for number in range(20):
        making.create(wallet_id(number))
    await commit_as_an_old_shard(database, making)
    plain = await asyncpg.connect(database)
    found = await plain.fetch(_SWEEP_BY_KEY, "00000000-0000-0000-0000-000000000000", 0, 0.0, 100)
    await plain.close()
    swept = connection(database)
    outbox = PostgresOutbox(swept, chores=swept)
    by_slot = [
        tuple(row)
        for shard in range(3)
        for row in await outbox.unpublished(limit=100, slots=ring_of(3).slots_of(shard))
    ]
    await swept.close()
    assert len(by_slot) == 20
    assert sorted(by_slot) == [tuple(row) for row in found]
