"""The checks before a deployment: each refuses, and nothing is sent to the cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from deploy.cluster import servers
from deploy.cluster.checks import DeploymentRefused, Plan, check
from deploy.cluster.configuration import from_settings, parse
from deploy.cluster.servers import PostgresState
from deploy.cluster.state import ClusterState
from deploy.local.errors import StackError
from migrations.revisions import newest_known
from runtime.settings import Settings
from tests.support.clusters import (
    API_CONFIG,
    PROJECTIONS_CONFIG,
    ScriptedCluster,
    application,
    changed,
    cluster_state,
    config,
    node,
)

POSTGRES = PostgresState(
    revision=newest_known(),
    compatibility=None,
    connections={"usable": 97, "shards": 0, "replicas": 0, "projections": 0, "others": 1},
)
ROOMY = cluster_state(node(0, 4), node(1, 4), node(2, 4))
SAFE = changed(API_CONFIG, auth="required")


class Environment:
    """What the servers say."""

    def __init__(self) -> None:
        self.postgres: PostgresState | StackError = POSTGRES
        self.nats: StackError | None = None
        self.steps: list[str] = []

    def read_postgres(self, _settings: Settings) -> PostgresState:
        if isinstance(self.postgres, StackError):
            raise self.postgres
        return self.postgres

    def reach_nats(self, _settings: Settings) -> None:
        if self.nats is not None:
            raise self.nats

    @contextmanager
    def step(self, _doing: str, done: str) -> Iterator[None]:
        yield
        self.steps.append(done)

    def check(
        self, raw: dict[str, object] | None = None, state: ClusterState | StackError = ROOMY
    ) -> Plan:
        cluster = ScriptedCluster(state)
        configuration = parse(raw or config(SAFE, PROJECTIONS_CONFIG), "serve.yaml")
        try:
            return check(configuration, cluster, Settings(), self.step)
        finally:
            assert cluster.deployed == []

    def refusal(
        self, raw: dict[str, object] | None = None, state: ClusterState | StackError = ROOMY
    ) -> str:
        with pytest.raises(DeploymentRefused) as refused:
            self.check(raw, state)
        return str(refused.value)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    found = Environment()
    monkeypatch.setattr(servers, "read_postgres", found.read_postgres)
    monkeypatch.setattr(servers, "reach_nats", found.reach_nats)
    return found


def test_what_is_right_becomes_a_plan(environment: Environment) -> None:
    plan = environment.check()
    assert plan.changes.applications == {"api", "projections"}
    assert plan.room.problems == []
    assert plan.demand.shards == 4
    assert "of 97 connections" in plan.connections
    assert len(environment.steps) == 4


def test_each_server_that_does_not_answer_is_refused(environment: Environment) -> None:
    lost = StackError("Can't reach it.")
    assert environment.refusal(state=lost) == "Can't reach it."
    environment.nats = lost
    assert environment.refusal() == "Can't reach it."
    environment.postgres, environment.nats = lost, None
    assert environment.refusal() == "Can't reach it."


def test_a_pending_migration_is_refused(environment: Environment) -> None:
    environment.postgres = msgspec.structs.replace(POSTGRES, revision="0001")
    assert "wallet migrate" in environment.refusal()


def test_missing_room_and_missing_connections_are_told_together(environment: Environment) -> None:
    few = {**POSTGRES.connections, "usable": 10}
    environment.postgres = msgspec.structs.replace(POSTGRES, connections=few)
    text = environment.refusal(state=cluster_state(node(0, 0.3)))
    room, connections = text.splitlines()
    assert room.startswith("No node has room for 4 of 4 new shards")
    assert connections.startswith("Postgres accepts 10 connections")


@pytest.mark.parametrize("option", [{"host": "127.0.0.1"}, {"port": 80}])
def test_another_address_than_serve_s_is_refused(
    environment: Environment, option: dict[str, object]
) -> None:
    running = cluster_state(node(0, 4), applications=[application(SAFE)])
    raw = config(SAFE, PROJECTIONS_CONFIG, http_options=option)
    assert "while it runs" in environment.refusal(raw, running)
    assert environment.check(raw).changes.applications, "before Serve runs any address is right"


def test_an_open_port_without_keys_is_refused(environment: Environment) -> None:
    raw = config(API_CONFIG, http_options={"host": "0.0.0.0"})  # refused
    assert "WALLET_AUTH" in environment.refusal(raw)
    running = cluster_state(node(0, 4), applications=[application(SAFE)])
    assert "WALLET_AUTH" in environment.refusal(config(API_CONFIG), running)


def test_nothing_that_changes_needs_no_room(environment: Environment) -> None:
    full = cluster_state(
        node(0, 0), applications=[application(SAFE), application(PROJECTIONS_CONFIG)]
    )
    plan = environment.check(state=full)
    assert plan.changes.is_empty


def test_more_replicas_need_no_room_for_shards(environment: Environment) -> None:
    api = {**SAFE, "deployments": [{"name": "Ingress", "num_replicas": 4}]}
    tight = cluster_state(
        node(0, 0.1), applications=[application(SAFE), application(PROJECTIONS_CONFIG)]
    )
    plan = environment.check(config(api, PROJECTIONS_CONFIG), tight)
    assert plan.demand.shards == 0
    assert plan.room.placement == {"ingress": {"10.0.0.0": 4}}


def test_settings_of_a_shell_are_checked_like_a_file(environment: Environment) -> None:
    configuration = from_settings(Settings(shard_count=20, shard_num_cpus=1), ["api"])
    with pytest.raises(DeploymentRefused, match="of 20 new shards"):
        check(configuration, ScriptedCluster(ROOMY), Settings(), environment.step)


def test_a_database_of_a_newer_release_is_a_note(environment: Environment) -> None:
    environment.postgres = msgspec.structs.replace(POSTGRES, revision="9000")
    assert any("newer than this release" in note for note in environment.check().notes)
