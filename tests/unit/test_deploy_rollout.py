"""Following a deployment: progress, room that is missing, failures, and the end of the time."""

import pytest

from deploy.cluster.demand import Demand
from deploy.cluster.rollout import WAITING_S, DeploymentFailed, DeploymentTimedOut, Rollout
from deploy.cluster.state import ClusterState
from deploy.local.errors import StackError
from tests.support.clusters import (
    API_CONFIG,
    ScriptedCluster,
    application,
    cluster_state,
    moved,
    node,
    replica,
    shard,
)

OLD = [shard(number, number % 2) for number in range(2)]
BEFORE = cluster_state(node(0, 1), node(1, 1), actors=OLD, applications=[application(API_CONFIG)])
DEMAND = Demand(shards=2, shard_cpus=0.5, replicas=1, replica_cpus=0.01)
NEW = [shard(0, 0, version="v2"), shard(1, None, version="v2")]


def deploying(*actors: object, free_cpus: float = 1, message: str = "") -> ClusterState:
    return cluster_state(
        node(0, free_cpus),
        node(1, free_cpus),
        actors=[*OLD, *actors],
        applications=[application(API_CONFIG, at_s=2, status="DEPLOYING", message=message)],
    )


RUNS = moved(deploying(), applications={"api": application(API_CONFIG, at_s=2)})


def follow(
    cluster: ScriptedCluster, *, timeout_s: float = 120, before: ClusterState | None = BEFORE
) -> list[str]:
    lines: list[str] = []
    cluster.lines = lines  # type: ignore[attr-defined]  # for tests of what failed
    Rollout(
        cluster,
        before=before,
        applications=["api"],
        demand=DEMAND,
        report=lambda text: lines.append(f"{cluster.now_s:.0f} {text}"),
        clock=cluster.clock,
        sleep=cluster.sleep,
    ).follow(timeout_s=timeout_s)
    return lines


def test_progress_is_told_whenever_it_changes_and_only_then() -> None:
    cluster = ScriptedCluster(
        BEFORE, deploying(*NEW), deploying(*NEW), deploying(NEW[0], shard(1, 1, version="v2")), RUNS
    )
    assert follow(cluster) == [
        "0 api RUNNING",
        "1 api DEPLOYING: 1 of 2 new shards",
        "3 api DEPLOYING: 2 of 2 new shards",
    ]


def test_a_version_that_already_ran_is_not_the_end() -> None:
    with pytest.raises(DeploymentTimedOut):
        follow(ScriptedCluster(BEFORE), timeout_s=30)


def test_a_moment_of_running_before_it_begins_is_not_the_end() -> None:
    lines = follow(ScriptedCluster(RUNS, deploying(*NEW), RUNS))
    assert lines == ["1 api DEPLOYING: 1 of 2 new shards"]


def test_shards_of_the_version_before_must_have_ended() -> None:
    both = moved(deploying(*NEW), applications={"api": application(API_CONFIG, at_s=2)})
    with pytest.raises(DeploymentTimedOut):
        follow(ScriptedCluster(both), timeout_s=30)


def test_settings_of_a_shell_end_although_serve_keeps_the_time() -> None:
    """`serve.run` changes no `last_deployed_time_s` of an application that exists."""
    begins = moved(deploying(*NEW), applications={"api": application(API_CONFIG)})
    runs = moved(RUNS, actors=[NEW[0], shard(1, 1, version="v2")], applications=BEFORE.applications)
    cluster = ScriptedCluster(BEFORE, BEFORE, begins, runs)
    assert follow(cluster)[-1] == "2 api RUNNING: 1 of 2 new shards"
    assert cluster.now_s == 5


def test_settings_of_a_shell_that_fail_are_told() -> None:
    failed = application(API_CONFIG, status="DEPLOY_FAILED", message="ValueError: wrong")
    cluster = ScriptedCluster(BEFORE, moved(BEFORE, applications={"api": failed}))
    with pytest.raises(DeploymentFailed, match="ValueError: wrong"):
        follow(cluster)


def test_one_that_had_begun_is_followed_to_its_end() -> None:
    started = deploying(NEW[0], shard(1, 1, version="v2"))
    ended = moved(RUNS, actors=[NEW[0], shard(1, 1, version="v2")])
    cluster = ScriptedCluster(deploying(*NEW), started, RUNS, started, ended)
    lines = follow(cluster, before=None)
    assert lines == [
        "0 api DEPLOYING: 3 of 4 shards",
        "1 api DEPLOYING: 4 of 4 shards",
    ]
    assert cluster.now_s == 6, "RUNNING three times in a row"


def test_one_that_had_begun_and_fails_is_told() -> None:
    failed = application(API_CONFIG, at_s=2, status="DEPLOY_FAILED", message="ValueError: wrong")
    cluster = ScriptedCluster(deploying(*NEW), moved(BEFORE, applications={"api": failed}))
    with pytest.raises(DeploymentFailed, match="ValueError: wrong"):
        follow(cluster, before=None)


def test_one_that_had_begun_must_end_the_shards_before() -> None:
    both = moved(deploying(*NEW), applications={"api": application(API_CONFIG, at_s=2)})
    with pytest.raises(DeploymentTimedOut):
        follow(ScriptedCluster(both), timeout_s=30, before=None)


def test_missing_room_is_reported_within_30_s_with_node_and_share() -> None:
    cluster = ScriptedCluster(deploying(*NEW, free_cpus=0.2))
    with pytest.raises(DeploymentTimedOut) as late:
        follow(cluster, timeout_s=60)
    (line,) = [one for one in cluster.lines if "No node has room" in one]  # type: ignore[attr-defined]
    assert float(line.split()[0]) <= WAITING_S + 1 < 30
    assert "shard-1: it needs 0.5 CPUs, 0.3 more than 10.0.0.0 has free" in line
    assert "No node has room for shard-1" in str(late.value)


def test_a_shard_that_only_takes_long_is_not_called_without_room() -> None:
    cluster = ScriptedCluster(deploying(*NEW, free_cpus=1))
    with pytest.raises(DeploymentTimedOut) as late:
        follow(cluster, timeout_s=60)
    assert "No node has room" not in str(late.value)
    assert "1 of 2 new shards" in str(late.value)


def test_a_replica_that_waits_for_its_share_is_reported() -> None:
    cluster = ScriptedCluster(deploying(replica("new", None)))
    with pytest.raises(DeploymentTimedOut, match="An ingress replica waits"):
        follow(cluster, timeout_s=60)


def test_a_failed_start_ends_it_at_once_with_serve_s_reason() -> None:
    failed = application(
        API_CONFIG, at_s=2, status="DEPLOY_FAILED", message="Trace\n  …\nValueError: wrong"
    )
    cluster = ScriptedCluster(moved(BEFORE, applications={"api": failed}))
    with pytest.raises(DeploymentFailed, match="Serve could not start `api`: ValueError: wrong"):
        follow(cluster)
    assert cluster.now_s == 0


def test_a_failure_of_the_deployment_before_does_not_count() -> None:
    failed = application(API_CONFIG, at_s=1, status="DEPLOY_FAILED")
    before = moved(BEFORE, applications={"api": failed})
    follow(ScriptedCluster(before, deploying(), RUNS), before=before)


def test_a_head_that_restarts_is_waited_for() -> None:
    lost = StackError("Can't reach the cluster")
    lines = follow(ScriptedCluster(deploying(*NEW), lost, lost, RUNS))
    assert lines[1:] == ["1 The cluster does not answer; trying again."]


def test_a_cluster_that_never_answers_again_is_an_error() -> None:
    cluster = ScriptedCluster(deploying(), StackError("Can't reach the cluster"))
    with pytest.raises(StackError, match="Can't reach"):
        follow(cluster, timeout_s=300)
    assert cluster.now_s < 70


def test_a_timeout_says_what_is_missing_and_what_serves() -> None:
    with pytest.raises(DeploymentTimedOut) as late:
        follow(ScriptedCluster(deploying(*NEW, message="Waiting for actors")), timeout_s=5)
    assert "after 5 s" in str(late.value)
    assert "Waiting for actors" in str(late.value)
    assert "the version before serves" in str(late.value)
