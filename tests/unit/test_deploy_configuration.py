"""A Serve configuration is rejected before anything is sent, with what is wrong."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cluster.configuration import from_settings, parse, read
from deploy.local.errors import StackError
from runtime.settings import Settings
from tests.support.clusters import API_CONFIG, PROJECTIONS_CONFIG, changed, config
from tests.support.commands import CHECKOUT


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WALLET_AUTH", "WALLET_SHARD_COUNT", "WALLET_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def refusal_of(raw: Any) -> str:
    with pytest.raises(StackError) as refused:
        parse(raw, "serve.yaml")
    return str(refused.value)


def test_the_file_of_the_repository_is_valid() -> None:
    found = read(CHECKOUT / "deploy" / "serve.yaml")
    assert found.applications.keys() == {"api", "projections"}
    assert (found.demand.shards, found.demand.replicas, found.demand.projections) == (4, 3, 2)
    assert found.demand.shard_cpus == 0.5
    assert found.demand.keys


def test_a_path_that_is_no_file_is_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StackError, match=f"Can't read {tmp_path}/deploy/serve.yaml"):
        read(Path("deploy/serve.yaml"))
    with pytest.raises(StackError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML (line 1)"),
        ("", "not a mapping"),
        ("- api", "not a mapping"),
        ("applications: []", "would remove all"),
        ("applications: [{name: api}]", "import_path"),
        ("http_options: {port: none}\napplications: []", "http_options.port"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(text)
    with pytest.raises(StackError) as refused:
        read(file)
    assert message in str(refused.value)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StackError, match="not a text file"):
        read(file)


def test_another_application_is_refused() -> None:
    other = {**API_CONFIG, "import_path": "fruit:app"}
    assert "is not one of this service" in refusal_of(config(other))


def test_an_application_that_is_named_twice_is_refused() -> None:
    assert "duplicates" in refusal_of(config(API_CONFIG, API_CONFIG))


def test_a_setting_that_does_not_exist_is_refused_by_its_name() -> None:
    assert "args of api: shard_cuont" in refusal_of(config(changed(API_CONFIG, shard_cuont=4)))


def test_a_setting_that_is_invalid_is_refused_without_its_value() -> None:
    text = refusal_of(config(changed(API_CONFIG, shard_count="hunter2")))
    assert "shard_count" in text
    assert "hunter2" not in text


def test_demand_counts_what_autoscaling_may_start() -> None:
    api = {
        **changed(API_CONFIG, auth="required", read_pool_max=4),
        "deployments": [
            {
                "name": "Ingress",
                "autoscaling_config": {"min_replicas": 3, "max_replicas": 12},
                "max_replicas_per_node": 2,
                "ray_actor_options": {"num_cpus": 1},
            }
        ],
    }
    demand = parse(config(api, PROJECTIONS_CONFIG), "serve.yaml").demand
    assert (demand.replicas, demand.replica_cpus, demand.replicas_per_node_max) == (12, 1.0, 2)
    assert demand.replica_connections == 12 * (4 + 2)
    assert demand.shard_connections == 4 * 4
    assert demand.projection_connections == 2 * 2
    assert demand.connections == 72 + 16 + 4


def test_demand_of_one_application_leaves_the_other_out() -> None:
    demand = parse(config(), "serve.yaml").only({"projections"}).demand
    assert (demand.shards, demand.replicas, demand.projections) == (0, 0, 2)


def test_settings_of_a_shell_are_a_configuration_without_a_file() -> None:
    found = from_settings(Settings(shard_count=3, ingress_replicas=2), ["api"])
    assert found.raw is None
    assert (found.demand.shards, found.demand.replicas, found.demand.projections) == (3, 2, 0)


def test_what_is_sent_is_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(config()))
    assert read(file).raw == config()


def test_the_command_does_not_import_ray_before_it_has_set_its_environment() -> None:
    program = "import sys, deploy.cli.deploy_command; sys.exit('ray' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], check=False, cwd=CHECKOUT).returncode == 0
    )
