"""Three machines: what `wallet deploy` does, refuses and shows, from the first deployment on."""

import json
import os
import time

import pytest

from tests.cluster.acceptance import Acceptance, result_of
from tests.cluster.conftest import Report
from tests.cluster.nodes import Cluster
from tests.cluster.parts import (
    INGRESS,
    INGRESS_REPLICAS,
    PARTS,
    PROJECTION,
    SHARD,
    SHARDS,
    load_on,
    pids,
    placement,
    spread_of,
    wait_until_whole,
)
from tests.e2e.api import Api

DEPLOYMENTS = int(os.environ.get("WALLET_CLUSTER_DEPLOYMENTS", "1"))
"""How often the same service is deployed anew. Each must be as even as the first."""


def test_the_first_deployment_is_spread(cluster: Cluster, acceptance: Acceptance) -> None:
    acceptance.placements.append(f"first deployment: {placement(cluster)}")
    assert spread_of(cluster, SHARD) == [1, 1, 2]
    assert spread_of(cluster, INGRESS) == [1, 1, 1]
    assert spread_of(cluster, PROJECTION) == [0, 1, 1]


def test_every_node_answers_for_the_whole(cluster: Cluster) -> None:
    assert sum(spread_of(cluster, SHARD)) == SHARDS
    assert sum(spread_of(cluster, INGRESS)) == INGRESS_REPLICAS
    wait_until_whole(cluster)
    for node in cluster.nodes:
        with Api(node.http_url) as api:
            wallet = api.new_wallet("7.00")
            for other in cluster.nodes:
                with Api(other.http_url) as elsewhere:
                    assert elsewhere.state(wallet)["balance"] == "7.00"


def test_serve_s_api_shows_no_password(cluster: Cluster) -> None:
    password = cluster.database_url.partition("@")[0].rpartition(":")[2]
    shown = json.dumps(cluster.serve_details())
    assert password
    assert "shard_count" in shown
    assert password not in shown


def test_status_shows_the_placement_in_80_columns(cluster: Cluster, log: list[str]) -> None:
    text = cluster.status()
    addresses = tuple(node.machine.address for node in cluster.nodes)
    rows = [line for line in text.splitlines() if line.startswith(addresses)]
    assert len(rows) == len(cluster.nodes)
    assert max(map(len, text.splitlines())) <= 80
    assert "evenly" not in text
    log.extend(text.splitlines())


def test_a_deployment_without_room_is_refused_and_changes_nothing(
    cluster: Cluster,
) -> None:
    before = pids(cluster, *PARTS)
    with pytest.raises(AssertionError) as refused:
        cluster.deploy(revision="large", shard_num_cpus=3.5)
    text = " ".join(str(refused.value).split())
    assert "new shards: it needs 3.5 CPUs" in text
    assert "more than " in text
    assert "Nothing was changed." in text
    assert pids(cluster, *PARTS) == before


def test_a_file_that_does_not_exist_deletes_nothing(cluster: Cluster) -> None:
    before = pids(cluster, *PARTS)
    with pytest.raises(AssertionError, match="Can't read"):
        cluster.wallet("deploy", "missing.yaml", "--yes", f"--address={cluster.dashboard_url}")
    assert pids(cluster, *PARTS) == before


@pytest.mark.parametrize("number", range(DEPLOYMENTS))
def test_an_upgrade_is_spread_and_fails_no_request(
    cluster: Cluster, http_url: str, acceptance: Acceptance, report: Report, number: int
) -> None:
    before = pids(cluster, SHARD)
    with load_on(http_url, acceptance) as load:
        began = time.monotonic()
        cluster.deploy()
        took_s = time.monotonic() - began
        load.wait_for_each(2, timeout_s=60)
    what = "`wallet deploy` of another revision"
    measured = f"took {took_s:.0f} s"
    report(result_of(load, "upgrade", what, "no failed attempt", measured))
    acceptance.placements.append(f"upgrade {number + 1}: {placement(cluster)}")

    assert load.failures == {}
    assert before.isdisjoint(pids(cluster, SHARD))
    assert spread_of(cluster, SHARD) == [1, 1, 2]
    assert spread_of(cluster, INGRESS) == [1, 1, 1]
