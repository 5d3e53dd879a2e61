"""docs/operating/cluster*.md: commands exist with these options, files and numbers are true."""

import re
import shlex
import warnings
from typing import Any, Final

import pytest
import typer.main
import yaml

from deploy.cli.main import app
from runtime.settings import Settings
from tests.unit.test_deploy_files import DEPLOY, RAY_ENV, ROOT, SERVE_CONFIGS, _variables

with warnings.catch_warnings():  # of Ray's own code, when it is imported
    warnings.simplefilter("ignore")
    from ray._private import ray_constants
    from ray.scripts.scripts import cli as ray_command
    from ray.serve._private import constants as serve_constants
    from ray.serve.scripts import cli as serve_command

_PAGES: Final = ("cluster.md", "cluster-network.md", "cluster-nodes.md")
PAGE: Final = "".join((ROOT / "docs/operating" / page).read_text("utf-8") for page in _PAGES)
BLOCKS: Final = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS: Final[dict[str, Any]] = {
    "wallet": typer.main.get_command(app),
    "ray": ray_command,
    "serve": serve_command,
}
UNITS: Final = DEPLOY / "systemd"
_CALL: Final = re.compile(r"\.venv/bin/(wallet|ray|serve) ([^|)\n]*)")
CALLS: Final = [found for block in BLOCKS for found in _CALL.findall(block)]


def heredoc(end: str) -> str:
    """The text of a file that a command of the page writes."""
    found = re.search(rf"<<'{end}'\n(.*?)^{end}$", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_every_block_says_where_it_runs() -> None:
    assert len(BLOCKS) >= 10
    for block in BLOCKS:
        assert re.match(r"# on (the |every |any )", block), block


@pytest.mark.parametrize(("program", "arguments"), CALLS, ids=lambda one: str(one)[:40])
def test_a_command_takes_these_arguments(
    program: str, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command, words = COMMANDS[program], shlex.split(arguments)
    if words == ["--help"]:
        return
    context = command.context_class(command, info_name=program)
    while hasattr(command, "resolve_command"):  # a group; typer has a Click of its own
        name, found, words = command.resolve_command(context, words)
        assert found is not None, words
        command, context = found, found.context_class(found, info_name=name, parent=context)
    command.make_context(command.name, words, parent=context.parent)


def test_a_file_of_the_checkout_exists() -> None:
    named = re.findall(r"/opt/wallet/((?:deploy|docs)/[\w./-]+)", "".join(BLOCKS))

    assert len(named) >= 5
    if not UNITS.is_dir():
        named = [path for path in named if not path.startswith("deploy/systemd/")]
    for path in named:
        assert (ROOT / path).is_file(), path


@pytest.mark.skipif(not UNITS.is_dir(), reason="the units of deploy/systemd are not here")
def test_the_units_get_their_variables_from_the_file_of_the_page() -> None:
    given = _variables(heredoc("ENV")).keys()

    settings = {f"WALLET_{name.upper()}" for name in Settings.model_fields}
    units = sorted(UNITS.glob("wallet-ray-*.service"))
    assert len(units) == 2
    for unit in units:
        text = unit.read_text(encoding="utf-8")
        assert set(re.findall(r"\$\{(\w+)\}", text)) <= given, unit.name
    assert {"WALLET_DATABASE_URL", "WALLET_NATS_URL"} <= settings & given
    assert not given & _variables(RAY_ENV).keys()


def test_the_table_of_ports_has_the_ports_that_are_used() -> None:
    table = PAGE[PAGE.index("## Ports") :]
    constants = {
        serve_constants.RAY_SERVE_FALLBACK_PROXY_HTTP_PORT,
        serve_constants.RAY_SERVE_HAPROXY_STATS_PORT,
        serve_constants.RAY_SERVE_HAPROXY_METRICS_PORT,
        ray_constants.DEFAULT_DASHBOARD_PORT,
        ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT,
        ray_constants.DEFAULT_PORT,
        Settings().http_port,
    }
    for unit in UNITS.glob("wallet-ray-*.service"):
        constants |= {
            int(port) for port in re.findall(r"-port=(\d+)", unit.read_text(encoding="utf-8"))
        }
    rows = re.findall(r"^\| ([\d, ]+)\D", table, re.MULTILINE)

    listed = {int(port) for row in rows for port in row.replace(",", " ").split()}
    assert constants <= listed


def test_prometheus_asks_the_nodes_of_the_page_at_their_port() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/machines.yml").read_text(encoding="utf-8"))
    nodes = re.search(r"elements = \{ (.*?) \}", heredoc("NFT"))
    assert nodes is not None

    (job,) = config["scrape_configs"]
    (static,) = job["static_configs"]
    assert static["targets"] == [f"{node}:8080" for node in nodes[1].split(", ")]
    for file in (*UNITS.glob("*.service"), DEPLOY / "container/ray-node"):
        assert "--metrics-export-port=8080" in file.read_text(encoding="utf-8"), file


def test_postgres_has_room_for_a_deployment_of_serve_yaml() -> None:
    (api, projections) = SERVE_CONFIGS["serve.yaml"]["applications"]
    replicas = api["deployments"][0]["num_replicas"]
    shards, groups = api["args"]["shard_count"], projections["args"]["projection_groups"]
    needed = replicas * (Settings().read_pool_max + 2) + 8 * shards + 4 * groups

    raised = re.search(r"max_connections = (\d+);", PAGE)
    assert raised is not None
    assert needed < 100 <= int(raised[1])
