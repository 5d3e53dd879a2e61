"""Postgres before a deployment: its schema, and its connections during one."""

import msgspec

from deploy.cluster.demand import Demand
from deploy.cluster.servers import (
    PostgresState,
    connection_problem,
    connections_needed,
    migration_note,
    migration_problem,
)
from migrations.revisions import newest_known

STATE = PostgresState(
    revision=newest_known(),
    compatibility=None,
    connections={"usable": 97, "shards": 16, "replicas": 18, "projections": 4, "others": 5},
)
DEMAND = Demand(shards=4, replicas=3, read_pool_max=4, keys=True, projections=2)


def test_replicas_are_replaced_and_shards_run_twice() -> None:
    """18 of three replicas, 16 + 16 of shards, 4 + 4 of projections, 5 of others."""
    assert DEMAND.connections == 18 + 16 + 4
    assert connections_needed(STATE, DEMAND) == 18 + 32 + 8 + 5
    assert connection_problem(STATE, DEMAND) is None


def test_more_than_postgres_accepts_says_by_how_many() -> None:
    demand = msgspec.structs.replace(DEMAND, replicas=12)
    problem = connection_problem(STATE, demand)
    assert problem is not None
    assert "accepts 97 connections, and the deployment may need 117" in problem
    assert "72 of 12 replicas, 16 of 4 shards, 4 of 2 projections" in problem
    assert "Raise max_connections by 20" in problem


def test_exactly_as_many_as_postgres_accepts_fit() -> None:
    usable = {**STATE.connections, "usable": connections_needed(STATE, DEMAND)}
    exact = msgspec.structs.replace(STATE, connections=usable)
    assert connection_problem(exact, DEMAND) is None
    short = msgspec.structs.replace(exact, connections={**usable, "usable": usable["usable"] - 1})
    assert connection_problem(short, DEMAND) is not None


def test_a_deployment_of_nothing_needs_what_is_in_use() -> None:
    assert connections_needed(STATE, Demand()) == 18 + 16 + 4 + 5


def test_the_newest_schema_is_no_problem() -> None:
    assert migration_problem(STATE) is None
    assert migration_note(STATE) is None


def test_no_tables_and_a_pending_migration_name_the_command() -> None:
    for revision, text in ((None, "has no tables"), ("0001", "is at revision 0001")):
        problem = migration_problem(msgspec.structs.replace(STATE, revision=revision))
        assert problem is not None
        assert text in problem
        assert "wallet migrate" in problem


def test_a_newer_schema_is_a_note_unless_it_excludes_this_release() -> None:
    newer = msgspec.structs.replace(STATE, revision="9000")
    assert migration_problem(newer) is None
    assert "newer than this release" in str(migration_note(newer))
    excluded = msgspec.structs.replace(newer, compatibility="oldest compatible revision: 9000")
    assert "Deploy the newer release" in str(migration_problem(excluded))
