"""Three Ray nodes: shards and ingress replicas are spread, also after nodes come and go."""

import os
from collections import Counter
from functools import partial

import httpx
import pytest
import yaml

from deploy.local.processes import wait_until
from tests.cluster.nodes import Cluster
from tests.support.commands import CHECKOUT

pytestmark = pytest.mark.timeout(600)

SHARD = "ray::ShardActor"
INGRESS = "ray::ServeReplica:api:Ingress"
PROJECTION = "ray::ProjectionActor"
PARTS = (SHARD, INGRESS, PROJECTION)
DEPLOYMENTS = int(os.environ.get("WALLET_CLUSTER_DEPLOYMENTS", "3"))
"""How often the same service is deployed anew. Each must be as even as the first."""


def counts(cluster: Cluster, title: str) -> list[int]:
    return sorted(len(node.titles(title)) for node in cluster.nodes)


def becomes(cluster: Cluster, title: str, expected: list[int], *, timeout_s: float = 60) -> bool:
    return wait_until(lambda: counts(cluster, title) == expected, timeout_s=timeout_s)


def wallet_deploy(cluster: Cluster, **arguments: object) -> str:
    """`wallet deploy` of deploy/serve.yaml with these arguments of the API, through the dashboard.

    AssertionError with its output if it fails.
    """
    config = yaml.safe_load((CHECKOUT / "deploy" / "serve.yaml").read_text())
    for application in config["applications"]:
        application["args"] |= {"auth": "off", "allow_unauthenticated_remote": True}
        application["args"]["revision"] = str(arguments.get("revision", "1"))
    config["applications"][0]["args"] |= arguments
    file = cluster.folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    # Not in Ray's environment: as from a machine that is no node.
    return cluster.wallet(
        "deploy", str(file), "--yes", f"--address={cluster.dashboard_url}", RAY_ADDRESS="-"
    )


def pids(cluster: Cluster) -> set[int]:
    return {pid for node in cluster.nodes for part in PARTS for pid in node.pids(part)}


def test_the_first_deployment_is_spread(cluster: Cluster) -> None:
    assert counts(cluster, SHARD) == [1, 1, 2]
    assert counts(cluster, INGRESS) == [1, 1, 1]
    assert counts(cluster, PROJECTION) == [0, 1, 1]


def test_serve_s_api_shows_no_password(cluster: Cluster) -> None:
    password = cluster.database_url.partition("@")[0].rpartition(":")[2]
    assert password
    answer = httpx.get(
        f"{cluster.dashboard_url}/api/serve/applications/",
        headers={"Authorization": f"Bearer {cluster.token}"},
        timeout=30,
    )
    assert "shard_count" in answer.text
    assert password not in answer.text


def test_status_shows_the_placement_in_80_columns(cluster: Cluster, log: list[str]) -> None:
    text = status(cluster)
    addresses = tuple(node.machine.address for node in cluster.nodes)
    rows = [line for line in text.splitlines() if line.startswith(addresses)]
    assert len(rows) == len(cluster.nodes)
    assert max(map(len, text.splitlines())) <= 80
    assert "evenly" not in text
    log.extend(text.splitlines())


def test_a_deployment_without_room_is_refused_and_changes_nothing(
    cluster: Cluster,
) -> None:
    before = pids(cluster)
    with pytest.raises(AssertionError) as refused:
        wallet_deploy(cluster, revision="large", shard_num_cpus=3.5)
    text = " ".join(str(refused.value).split())
    assert "new shards: it needs 3.5 CPUs" in text
    assert "more than " in text
    assert "Nothing was changed." in text
    assert pids(cluster) == before


def test_a_file_that_does_not_exist_deletes_nothing(cluster: Cluster) -> None:
    before = pids(cluster)
    with pytest.raises(AssertionError, match="Can't read"):
        cluster.wallet("deploy", "missing.yaml", "--yes", f"--address={cluster.dashboard_url}")
    assert pids(cluster) == before


def test_every_deployment_is_spread(cluster: Cluster, log: list[str]) -> None:
    seen: Counter[str] = Counter()
    for number in range(DEPLOYMENTS):
        said = wallet_deploy(cluster, revision=f"again-{number}")
        assert counts(cluster, SHARD) == [1, 1, 2], said
        assert counts(cluster, INGRESS) == [1, 1, 1], said
        seen[f"{counts(cluster, SHARD)} {counts(cluster, INGRESS)}"] += 1
        log.extend(line for line in said.splitlines() if "Deployed in" in line)
    log.append(f"deployed again: {dict(seen)}")


def status(cluster: Cluster) -> str:
    """What `wallet status` prints, whatever its exit code is."""
    try:
        return cluster.wallet("status", f"--address={cluster.dashboard_url}", COLUMNS="80")
    except AssertionError as not_ready:
        return str(not_ready)


def ingress_status(cluster: Cluster) -> str:
    """Serve's status of the deployment."""
    answer = httpx.get(
        f"{cluster.dashboard_url}/api/serve/applications/",
        headers={"Authorization": f"Bearer {cluster.token}"},
        timeout=30,
    )
    return str(answer.json()["applications"]["api"]["deployments"]["Ingress"]["status"])


def test_shards_of_a_lost_node_are_spread_over_the_others(cluster: Cluster, log: list[str]) -> None:
    busiest = max(cluster.nodes[1:], key=lambda node: len(node.titles(SHARD)))
    cluster.lose(busiest)
    assert becomes(cluster, SHARD, [2, 2]), counts(cluster, SHARD)
    assert becomes(cluster, INGRESS, [1, 1]), counts(cluster, INGRESS)
    assert wait_until(lambda: "ingress replica waits" in status(cluster), timeout_s=30)
    log.append(f"with a node less Ingress is {ingress_status(cluster)}")


def test_a_node_that_joins_gets_the_waiting_replica_at_once(cluster: Cluster) -> None:
    cluster.add_worker()
    assert becomes(cluster, INGRESS, [1, 1, 1]), counts(cluster, INGRESS)
    assert counts(cluster, SHARD) == [0, 2, 2]


def test_the_next_deployment_gives_it_its_share_of_the_shards(
    cluster: Cluster,
) -> None:
    said = wallet_deploy(cluster, revision="after-the-join")
    assert counts(cluster, SHARD) == [1, 1, 2], said
    assert counts(cluster, INGRESS) == [1, 1, 1], said


def test_a_fourth_node_gets_its_share_with_the_next_deployment(
    cluster: Cluster,
) -> None:
    cluster.add_worker()
    wallet_deploy(cluster, revision="four-nodes")
    spread = partial(becomes, cluster)
    assert spread(SHARD, [1, 1, 1, 1]), counts(cluster, SHARD)
    assert spread(INGRESS, [0, 1, 1, 1]), counts(cluster, INGRESS)
