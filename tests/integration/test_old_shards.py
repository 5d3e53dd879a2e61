"""During an upgrade, shards of the previous release write to the same database."""

import asyncpg
import pytest

from actors.journal.ports import ReadSet
from actors.journal.postgres import PostgresJournal
from actors.journal.postgres_columns import commit_arguments
from tests.support.domain import make_transfer, transfer_id, wallet_id
from tests.support.write_side import connection
from tests.support.writes import CommitRequestBuilder, make_answer
from wallet.state import TransferStatus

_OLD_PARAMETERS = 36
_COMMIT = f"SELECT commit_batch({', '.join(f'${n}' for n in range(1, _OLD_PARAMETERS + 1))})"
_WALLET_COLUMNS = range(1, 7)
_NEW_WALLET_COLUMNS = range(7, 12)


def as_an_old_shard_sends_it(making: CommitRequestBuilder) -> list[object]:
    """Its first parameters, with wallets in another order than by id."""
    arguments = list(commit_arguments(making.write)[:_OLD_PARAMETERS])
    for number in (*_WALLET_COLUMNS, *_NEW_WALLET_COLUMNS):
        column = arguments[number]
        assert isinstance(column, list)
        arguments[number] = column[::-1]
    return arguments


async def test_a_batch_of_an_old_shard_is_written_as_it_was_meant(database: str) -> None:
    journal = PostgresJournal(inner := connection(database))
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
    old = await asyncpg.connect(database)
    await old.execute(_COMMIT, *as_an_old_shard_sends_it(making))

    wallets = {wallet_id(number) for number in (1, 5, 7, 9)}
    assert (await journal.load(ReadSet(wallets=wallets))).wallets == making.write.wallets
    await old.close()
    await inner.close()


async def test_an_old_shard_does_not_write_what_was_refused_for_good(database: str) -> None:
    journal = PostgresJournal(inner := connection(database))
    first = CommitRequestBuilder()
    wallet = first.create(wallet_id(5))
    await journal.commit(first.write)
    refusal = CommitRequestBuilder(wallet)
    refusal.refuse(wallet.id, transfer_id(1))
    await journal.commit(refusal.write)

    late = CommitRequestBuilder(wallet)
    late.transfer(wallet.id, make_transfer(id=transfer_id(1)))
    old = await asyncpg.connect(database)
    with pytest.raises(asyncpg.PostgresError, match="refused for good"):
        await old.execute(_COMMIT, *as_an_old_shard_sends_it(late))
    await old.close()
    await inner.close()
