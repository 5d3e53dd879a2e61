"""`wallet deploy` on the running service: what it refuses changes nothing, what it deploys runs."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from deploy.cli.deploy_command import EXIT_REFUSED, EXIT_TIMED_OUT, EXIT_USAGE
from deploy.local.ports import free_port
from deploy.local.readiness_client import fetch_readiness
from tests.e2e.api import Api
from tests.support import databases
from tests.support.commands import CHECKOUT
from tests.support.running_service import RunningService

_ENTRY = "import sys; from deploy.cli.main import main; sys.exit(main())"
_TIMEOUT_S = 400
_COMMAND_TIMEOUT_S = 180
PARTS = ("ray::ShardActor", "ray::ServeReplica", "ray::ProjectionActor")

pytestmark = pytest.mark.timeout(_TIMEOUT_S)


class Done(NamedTuple):
    code: int
    text: str
    """Output and errors, without the breaks of a narrow terminal."""


_SETTLED_S_MAX = 120.0
"""Until a deployment has ended that was not waited for."""


class Operator:
    """Runs `wallet` as an operator of this stack would, from a folder of their own."""

    def __init__(self, service: RunningService, folder: Path) -> None:
        self._service = service
        self.folder = folder
        self.settings: dict[str, str] = {"WALLET_HTTP_PORT": service.url.rpartition(":")[2]}

    def run(self, *arguments: str, **settings: str) -> Done:
        assert self._service.state_dir is not None
        inherited = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("WALLET_", "RAY_"))
        }
        done = subprocess.run(
            [sys.executable, "-c", _ENTRY, *arguments],
            env=inherited
            | {"PYTHONPATH": str(CHECKOUT), "COLUMNS": "200"}
            | {"WALLET_HOME": str(self._service.state_dir.root)}
            | self.settings
            | settings,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
        return Done(done.returncode, f"{done.stdout}\n{done.stderr}")

    def file(self, **arguments: object) -> str:
        """A configuration for this stack, with these arguments of the API."""
        port = int(self.settings["WALLET_HTTP_PORT"])
        common = {"route_prefix": "/", "import_path": "serve_app.deployment:api"}
        config = {
            "http_options": {"host": "127.0.0.1", "port": port},
            "applications": [
                {"name": "api", **common, "args": {"shard_count": 2, **arguments}},
                {
                    "name": "projections",
                    "route_prefix": None,
                    "import_path": "serve_app.deployment:projections",
                },
            ],
        }
        (self.folder / "serve.yaml").write_text(yaml.safe_dump(config))
        return "serve.yaml"

    def pids(self) -> set[int]:
        return {one.pid for part in PARTS for one in self._service.processes(part)}


@pytest.fixture
def operator(service: RunningService, tmp_path: Path) -> Operator:
    if service.state_dir is None:
        pytest.skip("needs a local stack")
    return Operator(service, tmp_path)


@pytest.fixture
def unchanged(operator: Operator, service: RunningService, api: Api) -> Iterator[None]:
    """Fails the test if any process of the service was replaced, or a wallet can't be written."""
    before = operator.pids()
    yield
    assert operator.pids() == before
    assert fetch_readiness(service.url).is_ready
    api.new_wallet("1.00")


@pytest.mark.usefixtures("unchanged")
class TestRefused:
    def refused(self, done: Done) -> str:
        assert done.code == EXIT_REFUSED, done.text
        assert "Nothing was changed." in done.text
        assert "Traceback" not in done.text
        return done.text

    def test_a_path_that_is_no_file(self, operator: Operator) -> None:
        text = self.refused(operator.run("deploy", "deploy/serve.yaml", "--yes"))
        assert f"Can't read {operator.folder}/deploy/serve.yaml" in text

    def test_a_file_that_is_no_configuration(self, operator: Operator) -> None:
        (operator.folder / "serve.yaml").write_text("applications: []")
        assert "would remove all" in self.refused(operator.run("deploy", "serve.yaml", "--yes"))

    def test_a_setting_that_does_not_exist(self, operator: Operator) -> None:
        file = operator.file(shard_cuont=4)
        assert "shard_cuont" in self.refused(operator.run("deploy", file, "--yes"))

    def test_no_room(self, operator: Operator) -> None:
        done = operator.run("deploy", operator.file(shard_num_cpus=1000), "--yes")
        text = self.refused(done)
        assert "No node has room for 2 of 2 new shards: it needs 1000 CPUs" in text
        assert "127.0.0.1" in text

    def test_no_room_for_the_settings_of_a_shell(self, operator: Operator) -> None:
        done = operator.run("deploy", "api", WALLET_SHARD_NUM_CPUS="1000")
        assert "No node has room" in self.refused(done)

    def test_postgres_that_does_not_answer(self, operator: Operator) -> None:
        url = f"postgresql://wallet:hunter2@127.0.0.1:{free_port()}/wallet"
        done = operator.run("deploy", operator.file(), "--yes", WALLET_DATABASE_URL=url)
        text = self.refused(done)
        assert "Can't connect to Postgres at postgresql://127.0.0.1" in text
        assert "hunter2" not in text

    def test_nats_that_does_not_answer(self, operator: Operator) -> None:
        url = f"nats://hunter2@127.0.0.1:{free_port()}"
        done = operator.run("deploy", operator.file(), "--yes", WALLET_NATS_URL=url)
        text = self.refused(done)
        assert "Can't connect to NATS" in text
        assert "hunter2" not in text

    def test_a_database_without_tables(self, operator: Operator, service: RunningService) -> None:
        with databases.empty_database(service.database_url) as url:
            done = operator.run("deploy", operator.file(), "--yes", WALLET_DATABASE_URL=url)
        assert "Run `wallet migrate` first" in self.refused(done)

    def test_a_pending_migration(self, operator: Operator, service: RunningService) -> None:
        with databases.empty_database(service.database_url) as url:
            databases.execute(url, "CREATE TABLE alembic_version (version_num varchar(32))")
            databases.execute(url, "INSERT INTO alembic_version VALUES ('0009')")
            done = operator.run("deploy", operator.file(), "--yes", WALLET_DATABASE_URL=url)
        assert "is at revision 0009, and this release needs" in self.refused(done)

    def test_more_connections_than_postgres_accepts(self, operator: Operator) -> None:
        done = operator.run("deploy", operator.file(read_pool_max=500), "--yes")
        assert "Raise max_connections by" in self.refused(done)

    def test_another_port_than_serve_listens_on(self, operator: Operator) -> None:
        file = operator.file()
        config = yaml.safe_load((operator.folder / file).read_text())
        config["http_options"]["port"] = 8088
        (operator.folder / file).write_text(yaml.safe_dump(config))
        assert "Serve listens on port" in self.refused(operator.run("deploy", file, "--yes"))

    def test_a_cluster_that_does_not_answer(self, operator: Operator) -> None:
        address = f"--address=http://127.0.0.1:{free_port()}"
        servers = {"WALLET_DATABASE_URL": "postgresql://x/y", "WALLET_NATS_URL": "nats://x"}
        done = operator.run("deploy", operator.file(), "--yes", address, **servers)
        assert "Can't reach the cluster" in self.refused(done)

    def test_without_a_terminal_it_does_not_begin_unasked(self, operator: Operator) -> None:
        done = operator.run("deploy", operator.file(revision="unasked"))
        assert done.code == EXIT_USAGE
        assert "--yes" in done.text

    def test_a_dry_run_shows_what_would_change(self, operator: Operator) -> None:
        done = operator.run("deploy", operator.file(shard_count=3, revision="dry"), "--dry-run")
        assert done.code == 0, done.text
        assert ["api", "shard_count", "2", "3"] in [line.split() for line in done.text.splitlines()]
        assert "SHARDS" in done.text


def test_a_file_is_deployed_and_followed_to_its_end(operator: Operator, api: Api) -> None:
    before = operator.pids()
    file = operator.file(revision="first")

    done = operator.run("deploy", file, "--yes")

    assert done.code == 0, done.text
    assert "new shards" in done.text
    assert "Deployed in" in done.text
    assert before.isdisjoint(operator.pids())
    api.new_wallet("1.00")

    again = operator.run("deploy", file, "--yes")
    assert again.code == 0, again.text
    assert "Nothing changes." in again.text

    alone = operator.run("deploy", "api", "--timeout", "1")
    assert alone.code == EXIT_TIMED_OUT, alone.text
    assert "the version before serves meanwhile" in alone.text

    finished = operator.run("deploy", file, "--yes")
    assert finished.code == 0, finished.text
    api.new_wallet("1.00")


def test_settings_of_a_shell_are_deployed_and_followed_to_their_end(
    operator: Operator, api: Api
) -> None:
    before = operator.pids()
    done = operator.run("deploy", "api")
    assert done.code == 0, done.text
    assert "Deployed in" in done.text
    assert before - operator.pids(), "the version before still runs"
    api.new_wallet("1.00")


def test_the_same_file_again_follows_what_is_still_going_on(operator: Operator, api: Api) -> None:
    file = operator.file(revision="followed")
    left = operator.run("deploy", file, "--yes", "--timeout", "1")
    assert left.code == EXIT_TIMED_OUT, left.text
    before = operator.pids()

    followed = operator.run("deploy", file)

    assert followed.code == 0, followed.text
    assert "Nothing changes." in followed.text
    assert "Following the deployment that is going on." in followed.text
    assert "Deployed in" in followed.text
    assert before - operator.pids(), "the version before still runs"
    api.new_wallet("1.00")


def test_status_of_an_address_shows_placement_and_load(
    operator: Operator, service: RunningService
) -> None:
    assert service.state_dir is not None
    stack = service.state_dir.load()
    token = service.state_dir.secrets / "ray-token"
    deadline = time.monotonic() + _SETTLED_S_MAX
    while True:
        done = operator.run(
            "status",
            f"--address=127.0.0.1:{stack.ports['ray']}",
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(token),
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
        )
        if done.code == 0:
            break
        # The deployment that was given up by its time-out goes on.
        assert "DEPLOYING" in done.text, done.text
        assert time.monotonic() < deadline, done.text
    assert "2: 0 1" in done.text
    assert "SHARD SHARE" in done.text or "CMDS/BATCH" in done.text
