"""An upgrade under load: the release before and this one on one database, one stream.

Shards, ingress and projections of the release before run from its own sources, on its own schema.
The database is migrated while they serve; this release's processes come beside them, and both take
requests for the same wallets; then the old ones stop. Clients know what they were answered, and the
checker compares that with the journal.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import asyncpg
import msgspec
import pytest
from rich.console import Console

from migrations.migrate import upgrade
from projections.dead_letters import replay
from runtime.settings import Settings
from tests.support.databases import outbox_rows
from tests.support.read_side import until_equal
from tests.support.release_processes import CURRENT, RELEASE_0_1, Release, RunningRelease
from tests.support.released_sources import BEFORE_CONTROL, RELEASED, released_sources
from tests.support.servers import docker_engine_answers, nats_server, postgres_server
from tests.support.upgrade_load import (
    KNOWN_TO_BOTH,
    WITH_NEW_FEATURES,
    WITHOUT_PARTS,
    Balancer,
    BatchesOverWallets,
    Load,
    Replica,
)
from tests.support.waiting import until, until_true
from verification.database import connect
from verification.history import check_history
from verification.runner import EXIT_ERROR, Options, run
from verification.violations import ViolationKind

pytestmark = pytest.mark.timeout(240)

_LONGEST_S = 5.0
"""The longest that a request may take, on a machine that starts processes meanwhile. Half of the
service's deadline."""

_OVERDUE_S = 10.0
"""How late a transfer may expire, here: shards look for them every few seconds."""

_SEED_BATCHES = 20
_BATCH = 1_000


class Servers(NamedTuple):
    """Postgres without a schema, and NATS."""

    database: str
    nats: str

    @property
    def settings(self) -> dict[str, str]:
        return {
            "WALLET_DATABASE_URL": self.database,
            "WALLET_NATS_URL": self.nats,
            "WALLET_SHARD_COUNT": "2",
            "WALLET_LOG_LEVEL": "WARNING",
        }


@pytest.fixture
def servers() -> Iterator[Servers]:
    docker = docker_engine_answers()
    with postgres_server(use_docker=docker) as url, nats_server(use_docker=docker) as nats:
        yield Servers(url, nats)


class Phases:
    """When each phase of the upgrade began, on the clients' clock."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, int]] = []

    def begin(self, name: str) -> None:
        self._begun.append((name, time.monotonic_ns()))

    def longest(self, *loads: Load) -> dict[str, float]:
        """Of each phase, how long the slowest request took that was answered in it."""
        ends = [at for _, at in self._begun[1:]] + [time.monotonic_ns()]
        return {
            name: max(load.longest_s(begun, end) for load in loads)
            for (name, begun), end in zip(self._begun, ends, strict=True)
        }


@pytest.mark.parametrize(
    ("commit", "layout", "is_used_early"),
    # Relays of 0.1.0 publish what they don't know as something else: not to be used early.
    [(RELEASED, RELEASE_0_1, False), (BEFORE_CONTROL, CURRENT, True)],
    ids=["0.1", "control"],
)
async def test_an_upgrade_under_load_loses_and_doubles_nothing(
    servers: Servers,
    tmp_path: Path,
    log: list[str],
    commit: str,
    layout: str,
    is_used_early: bool,
) -> None:
    before = Release(released_sources(tmp_path, commit), layout=layout)
    await before.migrate(servers.database)
    balancer, phases = Balancer("upgrade"), Phases()
    plain = Load(balancer, name="p", seed="u", clients=8, mix=KNOWN_TO_BOTH, deposit=1_000_000)
    early = Load(balancer, name="e", seed="u", clients=4, mix=WITHOUT_PARTS, deposit=1_000)
    featured = Load(balancer, name="f", seed="u", clients=4, mix=WITH_NEW_FEATURES, deposit=1_000)
    batches = BatchesOverWallets(balancer)
    loads = (plain, early, featured) if is_used_early else (plain, featured)

    async with (
        before.running(servers.settings) as old,
        Replica(old.url) as old_replica,
        AsyncExitStack() as clients,
    ):
        for client in (*loads, batches):
            await clients.enter_async_context(client)
        balancer.lead_to(old=old_replica, new=None)
        await _pay_in_much(old_replica)
        await plain.start()
        await batches.start()
        phases.begin("before")
        await asyncio.sleep(2)
        phases.begin("migration")
        await asyncio.to_thread(upgrade, servers.database)
        phases.begin("start of the new processes")
        async with Release().running(servers.settings) as new, Replica(new.url) as new_replica:
            await _assert_releases_keep_apart(before, old, new)
            balancer.lead_to(old=old_replica, new=new_replica)
            phases.begin("both")
            await asyncio.sleep(4)
            if is_used_early:
                await early.start()
                phases.begin("both, with new features")
                await asyncio.sleep(8)
            balancer.lead_to(old=None, new=new_replica)
            phases.begin("end of the old processes")
            await until(lambda: old_replica.under_way == 0)
            await old.stop()
            phases.begin("after, with new features")
            await featured.start()
            await asyncio.sleep(6)
            for load in (*loads, batches):
                await load.stop()
            log += _told(phases, loads)

            # What both releases know never fails, nor does what is new once the old one has
            # ended. Before, old shards do not answer for it; they say that nothing was applied.
            assert not plain.failures
            assert not featured.failures
            assert set(early.failures) <= {"503 unavailable, not applied"}
            assert sum(load.given_up for load in loads) == 0
            assert max(phases.longest(*loads).values()) < _LONGEST_S

            await _until_projected(servers)
            new.assert_running()

    await _assert_paid_in(servers.database, batches)
    for load in loads:
        assert await _contradictions(servers.database, load) == []
    # Old relays also publish what shards of this release write, without the fields that they
    # don't know. So new features are to be used once the upgrade has ended.
    published = {"kind": ViolationKind.STREAM_EVENT_DIFFERS}
    violations = [
        one
        for one in await _violations(servers)
        if (one | published) != one or one["wallet_id"] not in early.state.wallets
    ]
    assert violations == [], violations


def _told(phases: Phases, loads: tuple[Load, ...]) -> list[str]:
    return [
        *(f"{name}: {s:.2f} s" for name, s in phases.longest(*loads).items()),
        *(f"{load.name}: {load.calls} calls, {dict(load.failures)}" for load in loads),
    ]


async def _pay_in_much(replica: Replica) -> None:
    """Rows, so that the indexes of the migration take a while to build."""
    opened = await replica.http.post("/v1/wallet", json={})
    path = f"/v1/wallet/{opened.raise_for_status().json()['id']}/transfers/batch"
    items = [{"type": "debit", "amount": "0.01", "status": "completed"}] * _BATCH
    for _ in range(_SEED_BATCHES):
        (await replica.http.post(path, json={"items": items})).raise_for_status()


async def _assert_releases_keep_apart(
    before: Release, old: RunningRelease, new: RunningRelease
) -> None:
    """A release's ingress doesn't use shards of the other one, should it ever be led there."""
    for release, shard in ((before, new.shards[0]), (Release(), old.shards[0])):
        assert "version" in await release.unreachable_reason(shard)
    assert not await Release().unreachable_reason(new.shards[0])


async def _is_drained(database: str) -> bool:
    return await outbox_rows(database) == 0


async def _until_projected(servers: Servers) -> None:
    await until_true(lambda: _is_drained(servers.database))
    await _replay_dead_letters(servers)
    await until_equal(servers.database)


async def _replay_dead_letters(servers: Servers) -> None:
    """Events of types that the old projection didn't know: as the upgrade's page says."""
    settings = Settings(_env_file=None, database_url=servers.database, nats_url=servers.nats)
    _, remaining = await replay(settings)
    assert remaining == 0


async def _assert_paid_in(database: str, batches: BatchesOverWallets) -> None:
    connection = await asyncpg.connect(database)
    try:
        balances = await connection.fetch(
            "SELECT balance::bigint FROM wallets WHERE id = ANY ($1::uuid[])", batches.wallets
        )
    finally:
        await connection.close()
    assert batches.requests > 0
    assert [row[0] for row in balances] == [batches.paid_in] * len(batches.wallets)


async def _contradictions(database: str, load: Load) -> list[str]:
    """What clients were answered, and the journal says otherwise."""
    connection = await connect(database)
    try:
        return [str(one) for one in await check_history(connection, load.state.history)]
    finally:
        await connection.close()


async def _violations(servers: Servers) -> list[dict[str, str]]:
    """What `wallet verify` finds. Projections were compared before."""
    printed = StringIO()
    out = Console(file=printed, width=400)
    options = Options(
        database_url=servers.database, nats_url=servers.nats, lag_max_s=_OVERDUE_S, as_json=True
    )
    code = await asyncio.to_thread(run, options, out, Console(file=StringIO()))
    assert code != EXIT_ERROR
    found: list[dict[str, str]] = msgspec.json.decode(printed.getvalue())["findings"]
    return found
