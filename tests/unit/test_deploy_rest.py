"""A cluster through its dashboard's API: what Ray answers becomes nodes, actors, applications."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray.serve.schema import ApplicationStatus

from deploy.cluster.rest import RestCluster
from deploy.cluster.state import applications_from
from deploy.local.errors import StackError
from tests.support.clusters import API_CONFIG, config

NODES = [
    {
        "node_id": "aa",
        "node_ip": "10.0.0.1",
        "is_head_node": True,
        "state": "ALIVE",
        "resources_total": {"CPU": 4.0, "memory": 1e9},
    },
    {"node_id": "bb", "node_ip": "10.0.0.2", "state": "DEAD", "resources_total": {"CPU": 4.0}},
]
ACTORS = [
    {
        "name": "SERVE_DEPLOYMENT_ACTOR::api::Ingress::v1::shard-0",
        "class_name": "ShardActor",
        "state": "ALIVE",
        "node_id": "aa",
        "required_resources": {"CPU": 0.5},
    },
    {
        "name": "SERVE_REPLICA::api#Ingress#x",
        "class_name": "ServeReplica:api:Ingress",
        "state": "PENDING_CREATION",
        "node_id": None,
        "required_resources": {"CPU": 0.01},
    },
]
MEMORY = [{"mem": [8e9, 2e9, 75.0, 6e9], "raylet": {"nodeId": "aa", "state": "ALIVE"}}, {}]
DETAILS = {
    "http_options": {"host": "0.0.0.0", "port": 8089},  # an answer
    "applications": {
        "api": {
            "status": "RUNNING",
            "message": "",
            "last_deployed_time_s": 7.0,
            "deployed_app_config": API_CONFIG,
            "deployments": {
                "Ingress": {
                    "target_num_replicas": 3,
                    "deployment_config": {
                        "deployment_actors": [{"init_kwargs": {"settings": {"shard_count": 4}}}]
                    },
                }
            },
        }
    },
}


class Dashboard:
    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, Any] = {
            "/api/serve/applications/": DETAILS,
            "/api/v0/nodes": {"data": {"result": {"result": NODES}}},
            "/api/v0/actors": {"data": {"result": {"result": ACTORS}}},
            "/nodes": {"data": {"summary": MEMORY}},
        }
        self.refuse: Callable[[httpx.Request], httpx.Response] | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.refuse is not None:
            return self.refuse(request)
        if request.method == "PUT":
            return httpx.Response(200)
        return httpx.Response(200, json=self.answers[request.url.path])


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Dashboard:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret-token")
    return Dashboard()


def cluster_of(dashboard: Dashboard) -> RestCluster:
    return RestCluster("http://head:8265/", transport=httpx.MockTransport(dashboard))


def test_nodes_have_what_their_actors_leave_free(dashboard: Dashboard) -> None:
    (node,) = cluster_of(dashboard).read().nodes
    assert (node.name, node.is_head, node.cpus, node.free_cpus) == ("10.0.0.1", True, 4.0, 3.5)
    assert node.free_memory_bytes == 2_000_000_000


def test_actors_are_sorted_into_the_parts_of_the_service(dashboard: Dashboard) -> None:
    state = cluster_of(dashboard).read()
    (shard,), (replica,) = state.of_kind("shard"), state.of_kind("ingress")
    assert (shard.label, shard.node, shard.is_alive) == ("shard-0", "aa", True)
    assert (replica.label, replica.node, replica.is_alive) == ("ingress replica", None, False)


def test_applications_have_their_configuration_and_settings(dashboard: Dashboard) -> None:
    state = cluster_of(dashboard).read()
    api = state.applications["api"]
    assert api.config == API_CONFIG
    assert api.settings == {"shard_count": 4}
    assert api.replicas == {"Ingress": 3}
    assert state.http == ("0.0.0.0", 8089)  # an answer


def test_a_cluster_without_serve_has_no_address_yet(dashboard: Dashboard) -> None:
    dashboard.answers["/api/serve/applications/"] = {"applications": {}}
    assert cluster_of(dashboard).read().http is None


def test_every_request_has_the_token(dashboard: Dashboard) -> None:
    cluster_of(dashboard).read()
    headers = {request.headers.get("Authorization") for request in dashboard.requests}
    assert headers == {"Bearer secret-token"}


def test_the_token_may_be_in_a_file(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(StackError, match="Can't read the token"):
        cluster_of(dashboard)
    (tmp_path / "token").write_text("of-a-file\n")
    cluster_of(dashboard).read()
    assert dashboard.requests[0].headers["Authorization"] == "Bearer of-a-file"


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_token_says_so(dashboard: Dashboard, status: int) -> None:
    dashboard.refuse = lambda _: httpx.Response(status)
    with pytest.raises(StackError, match="does not accept the token"):
        cluster_of(dashboard).read()


def test_no_answer_and_a_wrong_answer_name_the_address(dashboard: Dashboard) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    for refuse in (fail, lambda _: httpx.Response(500), lambda _: httpx.Response(200, text="<p>")):
        dashboard.refuse = refuse
        with pytest.raises(StackError, match="Can't reach the cluster at http://head:8265 "):
            cluster_of(dashboard).read()


def test_a_configuration_is_put_as_it_is(dashboard: Dashboard) -> None:
    cluster_of(dashboard).deploy(config())
    (request,) = dashboard.requests
    assert (request.method, request.url.path) == ("PUT", "/api/serve/applications/")
    assert json.loads(request.content) == config()


def test_a_refusal_of_serve_is_told_with_its_reason(dashboard: Dashboard) -> None:
    dashboard.refuse = lambda _: httpx.Response(400, text="Traceback …\nValueError: no")
    with pytest.raises(StackError, match="Serve refused the configuration: ValueError: no"):
        cluster_of(dashboard).deploy(config())


def test_the_controller_itself_answers_with_enumerations() -> None:
    running = applications_from({"applications": {"api": {"status": ApplicationStatus.RUNNING}}})
    assert running["api"].status == "RUNNING"
