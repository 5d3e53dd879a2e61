"""A shard on a real Postgres: what it writes, refuses and caches."""

import asyncio

import asyncpg

from actors.journal.ports import ReadSet
from actors.journal.postgres import PostgresJournal
from actors.rpc.messages import Applied, RequestResult
from tests.support.domain import make_transfer
from tests.support.ids import new_id
from tests.support.results import applied, body, refused, rolled_back
from tests.support.write_side import (
    ShardUnderTest,
    connection,
    create_wallet,
    creation_scope_of,
    credit,
    debit,
    idempotency_for,
    running_shard,
    settle,
)
from tests.support.writes import CommitRequestBuilder
from wallet.ids import IdempotencyKey, WalletId
from wallet.state import TransferStatus


async def test_a_completed_debit_puts_money_into_the_wallet(database: str) -> None:
    async with running_shard(database) as shard:
        wallet_id = await shard.create_wallet()
        answer = body(await shard.request(wallet_id, debit("10.5")))
    assert answer["amount"] == "10.50"
    assert answer["wallet"] == {
        "version": 2,
        "balance": "10.50",
        "pending_credit": "0.00",
        "pending_debit": "0.00",
    }


async def test_a_pending_credit_holds_the_money_until_it_is_settled(database: str) -> None:
    async with running_shard(database) as shard:
        wallet_id = await shard.create_wallet()
        await shard.request(wallet_id, debit("10"))
        held = body(await shard.request(wallet_id, credit("4", status="pending")))
        assert held["wallet"]["balance"] == "6.00"
        assert held["wallet"]["pending_credit"] == "4.00"
        done = body(await shard.request(wallet_id, settle(held["id"], "completed")))
        assert (done["status"], done["wallet"]["pending_credit"]) == ("completed", "0.00")
        again = body(await shard.request(wallet_id, settle(held["id"], "completed")))
        assert again == done
        failing = await shard.request(wallet_id, settle(held["id"], "failed"))
        assert body(failing)["code"] == "transfer_already_completed"


async def test_a_credit_beyond_the_balance_is_refused_and_changes_nothing(database: str) -> None:
    async with running_shard(database) as shard:
        wallet_id = await shard.create_wallet()
        await shard.request(wallet_id, debit("10"))
        beyond = await shard.request(wallet_id, credit("10.01"))
        assert body(beyond)["code"] == "insufficient_funds"
        exact = body(await shard.request(wallet_id, credit("10")))
    assert exact["wallet"]["version"] == 3
    assert exact["wallet"]["balance"] == "0.00"


async def test_a_cold_shard_continues_where_another_stopped(database: str) -> None:
    async with running_shard(database) as shard:
        wallet_id = await shard.create_wallet()
        pending = body(await shard.request(wallet_id, debit("3", status="pending")))
    async with running_shard(database) as successor:
        done = body(await successor.request(wallet_id, settle(pending["id"], "failed")))
        assert (done["status"], done["failure_reason"]) == ("failed", "reverted")
        assert done["wallet"] == {**pending["wallet"], "version": 3, "pending_debit": "0.00"}
        missing = await successor.request(wallet_id, settle(new_id(), "failed"))
        assert body(missing)["code"] == "transfer_not_found"
        nowhere = await successor.request(WalletId(new_id()), debit())
        assert body(nowhere)["code"] == "wallet_not_found"


async def test_a_key_gives_the_same_answer_again_also_for_a_refusal(database: str) -> None:
    async with running_shard(database) as shard:
        wallet_id = await shard.create_wallet()
        first = refused(await shard.request(wallet_id, credit("5"), key="k1"))
        await shard.request(wallet_id, debit("100"))
        again = refused(await shard.request(wallet_id, credit("5"), key="k1"))
        assert again.refusal == first.refusal
        assert again.replayed
        assert not first.replayed
        reused = await shard.request(wallet_id, credit("6"), key="k1")
        assert body(reused)["code"] == "idempotency_key_reused"


async def test_a_row_of_an_earlier_release_answers_its_request_again(database: str) -> None:
    transfer_id = new_id()
    row = f'{{"id":"{transfer_id}","wallet_id":"any","wallet":{{"version":2}},"note":"Žofie"}}'
    command = debit("5")
    connection = await asyncpg.connect(database)
    async with running_shard(database) as shard:
        wallet_id = await shard.create_wallet()
        await connection.execute(
            "INSERT INTO idempotency_keys VALUES ($1, 'k1', $2, 'r0', false, $3, 2, now())",
            wallet_id,
            idempotency_for("k1", command).fingerprint,
            row,
        )
        again = await shard.request(wallet_id, command, key="k1")
        after = body(await shard.request(wallet_id, debit("1")))
    await connection.close()
    assert again == Applied(id=transfer_id, version=2, body=row.encode(), replayed=True)
    assert after["wallet"]["balance"] == "1.00"


async def test_a_keyed_creation_makes_one_wallet(database: str) -> None:
    scope = creation_scope_of("open-1")
    async with running_shard(database) as shard:
        replies = await asyncio.gather(
            *(
                shard.request(
                    scope, create_wallet(WalletId(new_id()), reference_id="r"), key="open-1"
                )
                for _ in range(5)
            )
        )
        bodies = {applied(reply).body for reply in replies}
        assert len(bodies) == 1
        taken = await shard.request(scope, create_wallet(WalletId(new_id()), reference_id="r"))
        assert body(taken)["code"] == "reference_id_taken"


async def test_a_refused_atomic_batch_is_rolled_back_as_a_whole(database: str) -> None:
    async with running_shard(database) as shard:
        wallet_id = await shard.create_wallet()
        pending = body(await shard.request(wallet_id, debit("3", status="pending")))
        result = await shard.request(
            wallet_id,
            settle(pending["id"], "completed"),
            debit("1"),
            credit("100"),
            atomic=True,
        )
        assert rolled_back(result).index == 2
        after = body(await shard.request(wallet_id, settle(pending["id"], "failed")))
        assert after["wallet"]["version"] == 3
        assert after["wallet"]["balance"] == "0.00"


async def test_two_owners_of_one_wallet_lose_no_update(database: str) -> None:
    async with running_shard(database) as one, running_shard(database) as other:
        wallet_id = await one.create_wallet()
        await one.request(wallet_id, debit("50"))
        # Each caches the wallet at a version that the other has superseded.
        await other.request(wallet_id, debit("1"))
        await one.request(wallet_id, debit("1"))

        async def worker(owner: ShardUnderTest, kind: int) -> list[RequestResult]:
            return [
                await owner.request(wallet_id, credit("1") if kind % 2 else debit("0.5"))
                for _ in range(25)
            ]

        by_worker = await asyncio.gather(
            *(worker(owner, kind) for kind in range(8) for owner in (one, other))
        )
        replies = [reply for replies in by_worker for reply in replies]
        accepted = [body(reply) for reply in replies if isinstance(reply, Applied)]
        conflicts = one.shard.counts["conflicts"] + other.shard.counts["conflicts"]
    assert conflicts > 0, "no conflict happened: the test proved nothing"
    connection = await asyncpg.connect(database)
    try:
        versions = await connection.fetch(
            "SELECT version, balance FROM wallet_events WHERE wallet_id = $1 ORDER BY version",
            wallet_id,
        )
        wallet = await connection.fetchrow("SELECT * FROM wallets WHERE id = $1", wallet_id)
    finally:
        await connection.close()
    assert [row["version"] for row in versions] == list(range(1, len(versions) + 1))
    assert len(versions) == len(accepted) + 4
    assert min(row["balance"] for row in versions) >= 0
    assert sorted(answer["wallet"]["version"] for answer in accepted) == list(
        range(5, len(versions) + 1)
    )
    moved = sum(
        (-1 if answer["type"] == "credit" else 1) * round(float(answer["amount"]) * 100)
        for answer in accepted
    )
    assert wallet is not None
    assert wallet["balance"] == 5_200 + moved


async def test_an_owner_that_is_behind_settles_what_another_one_created(database: str) -> None:
    async with running_shard(database) as one, running_shard(database) as other:
        wallet_id = await one.create_wallet()
        await one.request(wallet_id, debit("5"))
        pending = body(await other.request(wallet_id, debit("2", status="pending")))
        # The wallet cached by `one` has no such pending transfer.
        done = body(await one.request(wallet_id, settle(pending["id"], "completed")))
    assert done["wallet"]["balance"] == "7.00"
    assert done["wallet"]["pending_debit"] == "0.00"


async def test_a_warm_journal_has_prepared_what_the_first_batch_runs(database: str) -> None:
    inner = connection(database)
    journal = PostgresJournal(inner)

    async def prepared() -> set[str]:
        rows = await inner.read(
            lambda one: one.fetch("SELECT statement FROM pg_prepared_statements")
        )
        return {row[0] for row in rows}

    await journal.warm_up()
    warm = await prepared()
    assert any("commit_batch" in one for one in warm)
    making = CommitRequestBuilder()
    wallet = making.create(WalletId(new_id()), reference_id="r")
    transfer = make_transfer(status=TransferStatus.COMPLETED)
    making.transfer(wallet.id, transfer)
    missing = ReadSet(
        wallets={wallet.id},
        transfers={(wallet.id, transfer.id)},
        created_transfers={(wallet.id, transfer.id)},
        keys={(wallet.id, IdempotencyKey("k"))},
        references={"r"},
    )
    assert not (await journal.load(missing)).wallets
    await journal.commit(making.write)
    assert await prepared() == warm
    await inner.close()


async def test_warming_up_writes_nothing(database: str) -> None:
    inner = connection(database)
    await PostgresJournal(inner).warm_up()
    tables = ("wallets", "wallet_references", "wallet_events", "idempotency_keys", "outbox")
    counted = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    row = await inner.read(lambda one: one.fetchrow(f"SELECT {counted}"))
    assert row is not None
    assert tuple(row) == (0,) * len(tables)
    await inner.close()
