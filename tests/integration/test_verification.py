"""The checker on real servers: consistent data passes, and each kind of damage is reported."""

import asyncio
import io
from datetime import timedelta
from pathlib import Path

import asyncpg
import msgspec
import nats
import pytest
from rich.console import Console

from tests.support.mixed_workload import EVENTS_A_ROUND, open_wallets, run_mixed_workload
from tests.support.published import wait_for_events
from tests.support.read_side import running_consumer, until_equal
from tests.support.results import applied, body
from tests.support.waiting import until_true
from tests.support.write_side import debit, running_shard
from verification import runner
from verification.database import check_database, connect
from verification.facts import ClientCall
from verification.findings import Findings
from verification.runner import EXIT_ERROR, EXIT_OK, EXIT_VIOLATIONS, Options
from verification.violations import Violation, ViolationKind
from wallet.ids import WalletId

AT_REST = timedelta(0)


async def money_moved(database: str, nats_url: str) -> list[WalletId]:
    """Wallets with a mixed workload, published and projected."""
    async with running_shard(database, nats_url) as shard:
        wallets = await open_wallets(shard, 6)
        await run_mixed_workload(shard, wallets, rounds=2)
        for wallet_id in wallets:
            await shard.request(wallet_id, debit("7"), key=f"key-{wallet_id}")
        await wait_for_events(nats_url, 6 * (2 + 2 * EVENTS_A_ROUND))
        async with running_consumer(database, nats_url):
            await until_equal(database)
        await until_true(lambda: _outbox_is_empty(database))
    return wallets


async def _outbox_is_empty(database: str) -> bool:
    connection = await asyncpg.connect(database)
    try:
        return not await connection.fetchval("SELECT count(*) FROM outbox")
    finally:
        await connection.close()


async def damage(database: str, *statements: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        for statement in statements:
            changed = await connection.execute(statement)
            assert not changed.endswith(" 0"), f"{statement} changed nothing"
    finally:
        await connection.close()


async def violations_in(database: str, *, lag_max: timedelta = AT_REST) -> list[Violation]:
    found: list[Violation] = []
    connection = await connect(database)
    try:
        await check_database(connection, Findings(found.append), lag_max=lag_max)
    finally:
        await connection.close()
    return found


async def breaches_in(database: str, *, lag_max: timedelta = AT_REST) -> set[ViolationKind]:
    return {violation.kind for violation in await violations_in(database, lag_max=lag_max)}


async def run_program(**options: object) -> tuple[int, str]:
    """Its exit code and output. It runs its own event loop."""
    said = io.StringIO()
    console = Console(file=said, width=1_000)
    wanted = Options(**options)  # type: ignore[arg-type]  # options of the command
    return await asyncio.to_thread(runner.run, wanted, console, console), said.getvalue()


ONE_WALLET = "(SELECT id FROM wallets ORDER BY id LIMIT 1)"
A_TRANSFER = f"wallet_id = {ONE_WALLET} AND status = 'completed' AND created_version = 2"

DAMAGES = {
    "a balance": (
        [f"UPDATE wallets SET balance = balance + 1 WHERE id = {ONE_WALLET}"],
        {ViolationKind.WALLET_ROW_DIFFERS, ViolationKind.MONEY_NOT_CONSERVED},
    ),
    "a version that is missing": (
        [f"DELETE FROM wallet_events WHERE wallet_id = {ONE_WALLET} AND version = 2"],
        {
            ViolationKind.VERSION_GAP,
            ViolationKind.CHAIN_BROKEN,
            ViolationKind.TRANSFER_ROW_WITHOUT_EVENT,
            ViolationKind.PROJECTION_UNKNOWN,
        },
    ),
    "the last event": (
        [
            f"DELETE FROM wallet_events e WHERE wallet_id = {ONE_WALLET} AND version = "
            "(SELECT version FROM wallets w WHERE w.id = e.wallet_id)"
        ],
        {
            ViolationKind.WALLET_ROW_DIFFERS,
            ViolationKind.TRANSFER_ROW_WITHOUT_EVENT,
            ViolationKind.PROJECTION_UNKNOWN,
            ViolationKind.KEY_ROW_WITHOUT_EVENT,
            ViolationKind.WALLET_HASH_WRONG,
            ViolationKind.PROJECTION_HASH_WRONG,
        },
    ),
    "an amount in the journal": (
        [f"UPDATE wallet_events SET amount = 999 WHERE wallet_id = {ONE_WALLET} AND version = 2"],
        {
            ViolationKind.FOLD_BROKEN,
            ViolationKind.EVENT_HASH_WRONG,
            ViolationKind.TRANSFER_ROW_DIFFERS,
            ViolationKind.PROJECTION_DIFFERS,
        },
    ),
    "a transfer, doubled": (
        [
            "INSERT INTO transfers SELECT wallet_id, gen_random_uuid(), type, status, amount, "
            "settled_amount, created_version, null, null, null, created_at "
            f"FROM transfers WHERE {A_TRANSFER}"
        ],
        {ViolationKind.TRANSFER_ROW_WITHOUT_EVENT, ViolationKind.MONEY_NOT_CONSERVED},
    ),
    "a transfer, lost": (
        [f"DELETE FROM transfers WHERE {A_TRANSFER}"],
        {ViolationKind.TRANSFER_ROW_MISSING, ViolationKind.MONEY_NOT_CONSERVED},
    ),
    "a transfer's status": (
        [f"UPDATE transfers SET status = 'pending' WHERE {A_TRANSFER}"],
        {ViolationKind.TRANSFER_ROW_DIFFERS, ViolationKind.MONEY_NOT_CONSERVED},
    ),
    "a wallet, lost": (
        [f"DELETE FROM wallets WHERE id = {ONE_WALLET}"],
        {
            ViolationKind.WALLET_ROW_MISSING,
            ViolationKind.PROJECTION_UNKNOWN,
            ViolationKind.MONEY_NOT_CONSERVED,
        },
    ),
    "a wallet without events": (
        [
            "INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, "
            "version, created_at, updated_at) VALUES (gen_random_uuid(), 'USD', 2, 0, 0, 0, 1, "
            "now(), now())"
        ],
        {ViolationKind.WALLET_ROW_DIFFERS, ViolationKind.PROJECTION_MISSING},
    ),
    "a key of no wallet": (
        ["UPDATE idempotency_keys SET wallet_id = gen_random_uuid() WHERE key LIKE 'key-%'"],
        {ViolationKind.KEY_ROW_WITHOUT_EVENT},
    ),
    "a remembered answer": (
        [
            "UPDATE idempotency_keys SET answer = "
            """replace(answer, '"balance":"', '"balance":"9') WHERE key LIKE 'key-%'"""
        ],
        {ViolationKind.KEY_ROW_DIFFERS},
    ),
    "an outbox row of no event": (
        [
            "INSERT INTO outbox (wallet_id, first_version, last_version) SELECT id, version + 1, "
            f"version + 2 FROM wallets WHERE id = {ONE_WALLET}"
        ],
        {ViolationKind.OUTBOX_ROW_UNSOUND},
    ),
    "an event's metadata": (
        [
            """UPDATE wallet_events SET metadata = '{"x":"y"}' """
            f"WHERE wallet_id = {ONE_WALLET} AND version = 2"
        ],
        {ViolationKind.EVENT_HASH_WRONG},
    ),
    "an event's time": (
        [
            "UPDATE wallet_events SET occurred_at = occurred_at + interval '1 microsecond' "
            f"WHERE wallet_id = {ONE_WALLET} AND version = 2"
        ],
        {ViolationKind.EVENT_HASH_WRONG},
    ),
    "a wallet's hash": (
        [f"UPDATE wallets SET hash = '' WHERE id = {ONE_WALLET}"],
        {ViolationKind.WALLET_HASH_WRONG},
    ),
    "a projected hash": (
        [f"UPDATE wallet_projections SET hash = '123' WHERE wallet_id = {ONE_WALLET}"],
        {ViolationKind.PROJECTION_HASH_WRONG},
    ),
    "a projected balance": (
        [f"UPDATE wallet_projections SET balance = 5 WHERE wallet_id = {ONE_WALLET}"],
        {ViolationKind.PROJECTION_DIFFERS},
    ),
    "a projected wallet, lost": (
        [f"DELETE FROM wallet_projections WHERE wallet_id = {ONE_WALLET}"],
        {ViolationKind.PROJECTION_MISSING},
    ),
    "a projected wallet, set back": (
        [f"UPDATE wallet_projections SET version = version - 1 WHERE wallet_id = {ONE_WALLET}"],
        {ViolationKind.PROJECTION_BEHIND, ViolationKind.PROJECTION_DIFFERS},
    ),
    "a projected transfer, lost": (
        [f"DELETE FROM transfer_projections WHERE {A_TRANSFER}"],
        {ViolationKind.PROJECTION_MISSING},
    ),
    "a projected transfer's status": (
        [f"UPDATE transfer_projections SET status = 'failed' WHERE {A_TRANSFER}"],
        {ViolationKind.PROJECTION_DIFFERS},
    ),
}


async def test_what_the_service_wrote_is_sound(database: str, nats_url: str) -> None:
    await money_moved(database, nats_url)
    assert await violations_in(database) == []


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_is_found_by_its_name(database: str, nats_url: str, name: str) -> None:
    await money_moved(database, nats_url)
    statements, expected = DAMAGES[name]
    await damage(database, *statements)
    assert await breaches_in(database) == expected


async def test_a_transfer_settled_twice_is_found_though_balances_agree(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet_id = await shard.create_wallet()
        held = body(await shard.request(wallet_id, debit("5", status="pending")))["id"]
    columns = "transfer_type, previous_status, amount, transfer_id, created_version"
    await damage(
        database,
        *(
            "INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, "
            f"pending_debit, pending_credit, {columns}) SELECT wallet_id, {version}, "
            f"'transfer.completed', now(), {5 * (version - 2)}00, {5 * (3 - version)}00, 0, "
            f"'debit', 'pending', 500, '{held}', 2 FROM wallet_events WHERE version = 2"
            for version in (3, 4)
        ),
    )
    found = await breaches_in(database, lag_max=timedelta(hours=1))
    assert ViolationKind.TRANSFER_SETTLED_TWICE in found
    assert ViolationKind.HOLD_NEGATIVE in found


async def test_projections_that_lag_are_no_drift_until_they_lag_too_long(
    database: str, nats_url: str
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallets = await open_wallets(shard, 3)
        await wait_for_events(nats_url, 3)
        async with running_consumer(database, nats_url):
            await until_equal(database)
        await run_mixed_workload(shard, wallets)
    assert await breaches_in(database, lag_max=timedelta(hours=1)) == set()
    assert await breaches_in(database) == {ViolationKind.PROJECTION_BEHIND}
    await damage(database, "UPDATE wallet_projections SET balance = 5")
    assert await breaches_in(database, lag_max=timedelta(hours=1)) == {
        ViolationKind.PROJECTION_DIFFERS
    }


async def test_the_program_says_what_is_wrong_and_where(database: str, nats_url: str) -> None:
    wallets = await money_moved(database, nats_url)
    options = {"database_url": database, "nats_url": nats_url, "lag_max_s": 0.0}
    code, said = await run_program(**options)
    assert (code, "No violations found." in said) == (EXIT_OK, True), said
    await damage(database, f"UPDATE wallets SET balance = 1 WHERE id = '{wallets[2]}'")
    code, said = await run_program(**options)
    assert code == EXIT_VIOLATIONS
    assert f"rule 2 wallet_row_differs wallet={wallets[2]}" in said


async def test_the_stream_is_held_against_the_journal(database: str, nats_url: str) -> None:
    wallets = await money_moved(database, nats_url)
    client = await nats.connect(nats_url)
    stream = client.jetstream()
    last = (await stream.stream_info("WALLET_EVENTS")).state.last_seq
    await stream.delete_msg("WALLET_EVENTS", last)  # the end of one wallet
    await stream.delete_msg("WALLET_EVENTS", 10)  # the middle of another
    await stream.publish("wallet.events.0.x.y", b"nonsense")
    await client.close()
    await damage(
        database, f"UPDATE wallet_events SET failure_reason = 'x' WHERE wallet_id = '{wallets[0]}'"
    )
    code, said = await run_program(database_url=database, nats_url=nats_url)
    assert code == EXIT_VIOLATIONS
    for breach in (
        ViolationKind.STREAM_EVENT_MISSING,
        ViolationKind.STREAM_EVENT_OUT_OF_ORDER,
        ViolationKind.STREAM_EVENT_UNKNOWN,
        ViolationKind.STREAM_EVENT_DIFFERS,
    ):
        assert f" {breach} " in said, said
    assert f" {ViolationKind.STREAM_HASH_WRONG} " not in said, said
    await damage(
        database,
        "UPDATE wallet_events SET hash = '1234567890123456' WHERE version = 3",
        "UPDATE wallet_events SET key_digest = '1' WHERE version = 4",
    )
    code, said = await run_program(database_url=database, nats_url=nats_url)
    assert f" {ViolationKind.STREAM_HASH_WRONG} " in said, said
    assert f" {ViolationKind.STREAM_MESSAGE_ID_WRONG} " in said, said


async def test_reported_responses_are_checked_against_the_journal(
    database: str, nats_url: str, tmp_path: Path
) -> None:
    async with running_shard(database, nats_url) as shard:
        wallet_id = await shard.create_wallet(reference_id="made")
        reported = await shard.request(wallet_id, debit("5", reference_id="paid"))
    created = ClientCall(
        operation_id="made", operation="create_wallet", started=1, ended=2, outcome="unknown"
    )
    paid = ClientCall(
        operation_id="paid",
        operation="debit",
        started=3,
        ended=4,
        outcome="acknowledged",
        wallet_id=wallet_id,
        amount=500,
        status=201,
        body=applied(reported).body.decode(),
        version=2,
    )
    lost = msgspec.structs.replace(paid, operation_id="paid again", started=5, ended=6)
    history = tmp_path / "history.jsonl"
    options = {"database_url": database, "history": history}
    history.write_bytes(b"\n".join(map(msgspec.json.encode, (created, paid))))
    assert (await run_program(**options))[0] == EXIT_OK
    history.write_bytes(b"\n".join(map(msgspec.json.encode, (created, paid, lost))))
    code, said = await run_program(**options)
    assert code == EXIT_VIOLATIONS
    assert (
        f" {ViolationKind.ACKNOWLEDGED_WRITE_MISSING} wallet={wallet_id} operation_id=paid again"
        in said
    )


async def test_what_can_not_be_checked_is_neither_sound_nor_wrong(tmp_path: Path) -> None:
    nobody = "postgresql://nobody@127.0.0.1:1/nothing"
    assert (await run_program(database_url=nobody))[0] == EXIT_ERROR
    nowhere = tmp_path / "none"
    assert (await run_program(database_url=nobody, history=nowhere))[0] == EXIT_ERROR


async def test_it_is_right_while_writes_go_on(database: str, nats_url: str) -> None:
    async with running_shard(database, nats_url) as shard:
        wallets = await open_wallets(shard, 6)
        await wait_for_events(nats_url, 6)
        stopping = asyncio.Event()

        async def write() -> int:
            rounds = 0
            while not stopping.is_set():
                await run_mixed_workload(shard, wallets, rounds=1)
                rounds += 1
            return rounds

        async with running_consumer(database, nats_url):
            writing = asyncio.create_task(write())
            for _ in range(5):
                code, said = await run_program(database_url=database, nats_url=nats_url)
                assert code == EXIT_OK, said
            stopping.set()
            assert await writing > 1
