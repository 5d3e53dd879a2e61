"""The files below `deploy/` are consistent with the code and with each other."""

import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local import ray_environment
from deploy.local.ray_environment import PORTS, serve_environment
from deploy.local.state_dir import Stack, StateDirectory
from runtime.settings import Settings

with warnings.catch_warnings():  # of Ray's own code, when it is imported
    warnings.simplefilter("ignore")
    from ray.serve.schema import ServeDeploySchema

    from serve_app.arguments import ApplicationArguments

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

# Paths and ports that two stacks of one machine must not share; a container has a machine of its
# own. The rest of it: who may connect, how many cores there are.
_OF_ONE_MACHINE = re.compile(
    r"RAY_ADDRESS|RAY_AUTH_TOKEN_PATH|RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER|RAY_SERVE_HAPROXY_NBTHREAD"
    r"|RAY_SERVE_.*(PORT|CONFIG_FILE_LOC|SOCKET_PATH|STATE_BASE|STATE_FILE|LOG_TARGET)"
)


def _yaml(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))


def _variables(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


RAY_ENV = (DEPLOY / "ray.env").read_text(encoding="utf-8")
SERVICE = _yaml("kuberay/rayservice.yaml")
CLUSTER = SERVICE["spec"]["rayClusterConfig"]
HEAD = CLUSTER["headGroupSpec"]
(WORKERS,) = CLUSTER["workerGroupSpecs"]
PODS = {"head": HEAD["template"]["spec"], "worker": WORKERS["template"]["spec"]}
SERVE_CONFIGS = {
    "serve.yaml": _yaml("serve.yaml"),
    "rayservice.yaml": yaml.safe_load(SERVICE["spec"]["serveConfigV2"]),
}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of Ray's processes on one machine."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(ray_environment, "haproxy_unavailable_reason", lambda: None)
    state_dir = StateDirectory(tmp_path)
    state_dir.create()
    ports = {name: 20_000 + number for number, name in enumerate(PORTS)}
    state_dir.save(Stack(ports=ports, sockets=Path("/tmp/wallet-12345678")))
    return {
        name: text
        for name, text in serve_environment(Settings(), state_dir).items()
        if name.startswith(("RAY_", "WALLET_HAPROXY_")) and not _OF_ONE_MACHINE.fullmatch(name)
    }


def test_rays_environment_differs_from_the_local_stacks_only_as_listed(
    local: dict[str, str],
) -> None:
    same, different = (
        _variables(part) for part in RAY_ENV.split("# Different from the local stack:")
    )
    same.pop("RAY_SERVE_HAPROXY_LOG_TARGET")
    program = local.pop("RAY_SERVE_HAPROXY_BINARY_PATH")  # a path, so the image has it
    assert f"RAY_SERVE_HAPROXY_BINARY_PATH=/opt/wallet/bin/{Path(program).name}" in DOCKERFILE

    assert same == {name: local[name] for name in same}
    assert local.keys() - same.keys() <= different.keys()
    assert not same.keys() & different.keys()


def test_haproxy_of_a_cluster_waits_longer_than_any_deadline() -> None:
    limit = Settings().request_timeout_max_s

    assert float(_variables(RAY_ENV)["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"]) > limit


def test_ray_leaves_a_silent_machine_once_it_counts_as_dead() -> None:
    found = _variables(RAY_ENV)
    dead_ms = int(found["RAY_health_check_period_ms"]) * (
        int(found["RAY_health_check_failure_threshold"]) - 1
    ) + int(found["RAY_health_check_timeout_ms"])

    assert 0 < int(found["RAY_grpc_client_keepalive_timeout_ms"]) <= dead_ms + 1_000
    assert 0 < int(found["RAY_raylet_liveness_self_check_interval_ms"]) <= dead_ms


@pytest.mark.parametrize("name", SERVE_CONFIGS)
def test_serve_takes_the_configuration(name: str) -> None:
    config = ServeDeploySchema(**SERVE_CONFIGS[name])

    assert {one.name for one in config.applications} == {"api", "projections"}
    assert config.http_options.port == Settings().http_port


@pytest.mark.parametrize("name", SERVE_CONFIGS)
def test_an_applications_arguments_are_settings(name: str) -> None:
    for application in SERVE_CONFIGS[name]["applications"]:
        module, _, function = application["import_path"].partition(":")
        assert callable(getattr(import_module(module), function))
        assert ApplicationArguments(**application["args"]).revision


def test_the_autoscaling_policy_is_there() -> None:
    api = SERVE_CONFIGS["rayservice.yaml"]["applications"][0]
    policy = api["deployments"][0]["autoscaling_config"]["policy"]
    module, _, name = policy["policy_function"].partition(":")

    assert getattr(import_module(module), name)(**policy["policy_kwargs"])


def test_kubernetes_has_room_for_both_generations_of_an_upgrade() -> None:
    api = SERVE_CONFIGS["rayservice.yaml"]["applications"][0]
    shards = api["args"]["shard_count"] * api["args"]["shard_num_cpus"]
    (ingress,) = api["deployments"]
    replicas = ingress["autoscaling_config"]["min_replicas"]
    cpus = int(WORKERS["rayStartParams"]["num-cpus"])

    assert WORKERS["minReplicas"] * cpus >= shards + replicas
    assert WORKERS["maxReplicas"] * cpus >= 2 * (shards + replicas)
    assert HEAD["rayStartParams"]["num-cpus"] == "0"


def test_kubernetes_runs_the_ray_that_is_installed() -> None:
    assert CLUSTER["rayVersion"] == version("ray")


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS.keys())
def test_a_pod_has_its_variables_secrets_limits_and_probes(pod: Any) -> None:
    (container,) = pod["containers"]
    others = pod.get("initContainers", [])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert ports["serve"] == Settings().http_port
    assert {next(iter(one.values()))["name"] for one in container["envFrom"]} == {
        "wallet-ray",
        "wallet-servers",
    }
    assert container["startupProbe"]["httpGet"]["path"]
    for one in (container, *others):
        assert one["resources"]["requests"].keys() == {"cpu", "memory"}
        assert one["resources"]["limits"]["memory"]
        assert one["readinessProbe"]["httpGet"]["path"]
        assert one["livenessProbe"]
        assert one["securityContext"]["runAsNonRoot"]
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_worker_without_a_replica_is_ready() -> None:
    """Ready says that its node is alive, and that its balancer reaches a replica somewhere."""
    (worker,), (balancer,) = PODS["worker"]["containers"], PODS["worker"]["initContainers"]

    assert worker["readinessProbe"]["httpGet"] == worker["livenessProbe"]["httpGet"]
    assert worker["readinessProbe"]["httpGet"]["port"] != Settings().http_port
    assert balancer["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "probes"}
    ports = {port["name"]: port["containerPort"] for port in balancer["ports"]}
    variables = {one["name"]: one["value"] for one in balancer["env"]}
    assert variables["WALLET_BALANCER_BIND"] == f":{ports['balancer']}"
    assert variables["WALLET_BALANCER_PROBE_BIND"] == f":{ports['probes']}"


def test_clients_reach_the_balancers_and_these_reach_every_worker() -> None:
    (worker,), (balancer,) = PODS["worker"]["containers"], PODS["worker"]["initContainers"]
    (exposed,) = SERVICE["spec"]["serveService"]["spec"]["ports"]
    policy, _ = yaml.safe_load_all((DEPLOY / "kuberay/policies.yaml").read_text("utf-8"))
    workers = _yaml("kuberay/workers.yaml")

    port = balancer["ports"][0]["containerPort"]
    assert exposed == {"name": "serve", "port": Settings().http_port, "targetPort": port}
    assert {one["port"] for one in policy["spec"]["ingress"][1]["ports"]} == {port}
    # Restarted also where the autoscaler forbids that for the pod.
    assert balancer["restartPolicy"] == "Always"
    assert workers["spec"]["publishNotReadyAddresses"]
    assert workers["spec"]["clusterIP"] == "None"
    labels = WORKERS["template"]["metadata"]["labels"]
    assert workers["spec"]["selector"].items() <= labels.items()
    variables = {one["name"]: one["value"] for one in balancer["env"]}
    name = f"{workers['metadata']['name']}:{worker['ports'][1]['containerPort']}"
    assert variables["WALLET_BALANCER_NODES"] == name


def test_the_balancer_has_a_place_for_each_worker_of_two_clusters() -> None:
    text = (DEPLOY / "container/balancer.cfg").read_text("utf-8")
    found = re.search(r"server-template other 1-(\d+) ", text)

    assert found is not None
    assert int(found[1]) >= 2 * WORKERS["maxReplicas"]


def test_one_worker_of_the_minimum_may_be_evicted_at_a_time() -> None:
    """`maxUnavailable` needs the scale of a pod's owner, and a RayCluster has none."""
    _, budget = yaml.safe_load_all((DEPLOY / "kuberay/policies.yaml").read_text("utf-8"))

    assert "maxUnavailable" not in budget["spec"]
    assert budget["spec"]["minAvailable"] == WORKERS["minReplicas"] - 1
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_nothing_secret_is_written_down_in_the_manifests() -> None:
    for path in (DEPLOY / "kuberay").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"kind: Secret|://[^ \n]*:[^ \n/]*@", text), path


def test_the_policies_are_about_the_pods_of_the_service() -> None:
    text = (DEPLOY / "kuberay/policies.yaml").read_text(encoding="utf-8")
    policy, budget = yaml.safe_load_all(text)
    labels = {
        part: spec["template"]["metadata"]["labels"]
        for part, spec in (("head", HEAD), ("worker", WORKERS))
    }

    for of_pod in labels.values():
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= of_pod.items()
    chosen = budget["spec"]["selector"]["matchLabels"].items()
    assert chosen <= labels["worker"].items()
    assert not chosen <= labels["head"].items()


def _images() -> Iterator[str]:
    yield from re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    yield from (service["image"] for service in COMPOSE["services"].values())
    for path in (DEPLOY / "kuberay").glob("*.yaml"):
        yield from re.findall(r"image: (?:&\w+ )?([^\s*]+)", path.read_text("utf-8"))


@pytest.mark.parametrize("image", sorted(set(_images())))
def test_an_image_has_a_version(image: str) -> None:
    name, _, tag = image.partition(":")

    assert name
    assert tag
    assert tag != "latest"


def test_composes_ports_are_on_loopback_and_its_containers_can_do_little() -> None:
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        if "build" in service:
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_make_has_every_target_once() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "help"],
        env={"PATH": os.environ["PATH"]},  # no variables of a `make` that runs these tests
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""
