"""The units of deploy/systemd/: valid, supervised, and consistent with the other files."""

import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.cluster.units import directives, read_environment
from tests.support.commands import CHECKOUT

UNITS = sorted((CHECKOUT / "deploy" / "systemd").glob("*.service"))
WORKER = CHECKOUT / "deploy" / "systemd" / "wallet-ray-worker.service"


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_there_is_a_unit_for_the_head_and_one_for_workers() -> None:
    assert [one.stem for one in UNITS] == ["wallet-ray-head", "wallet-ray-worker"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text().replace("/opt/wallet/.venv/bin", sysconfig.get_path("scripts"))
    text = text.replace("User=wallet", "User=root").replace("/opt/wallet", str(CHECKOUT))
    copy = tmp_path / unit.name
    copy.write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, ours) == (0, [])


def test_a_unit_starts_again_for_ever_and_leaves_nothing_behind(unit: Path) -> None:
    found = directives(unit.read_text())
    assert found["Restart"] == ["always"]
    assert found["KillMode"] == ["control-group"]
    assert "StartLimitIntervalSec=0" in unit.read_text().splitlines()


def test_a_unit_lives_as_long_as_its_node(unit: Path) -> None:
    command = shlex.split(directives(unit.read_text())["ExecStart"][0])
    assert command[:3] == ["/opt/wallet/.venv/bin/ray", "start", "--block"]


def test_a_unit_drains_within_its_time_to_stop(unit: Path) -> None:
    found = directives(unit.read_text())
    assert "-m deploy.node.drain" in found["ExecStop"][0]
    assert float(found["TimeoutStopSec"][0]) >= 90
    assert "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0" in found["Environment"]


def test_a_unit_has_the_environment_of_every_cluster(unit: Path) -> None:
    files = directives(unit.read_text())["EnvironmentFile"]
    assert files == ["/opt/wallet/deploy/ray.env", "/etc/wallet/node.env"]
    assert read_environment(CHECKOUT / "deploy" / "ray.env")["RAY_AUTH_MODE"] == "token"


def test_variables_of_a_unit_are_in_its_documents(unit: Path) -> None:
    page = (CHECKOUT / "docs" / "operating" / "cluster-faults.md").read_text()
    for variable in re.findall(r"\$\{(\w+)\}", unit.read_text()):
        assert variable in page


def test_a_worker_finds_its_head() -> None:
    assert "--address=${RAY_ADDRESS}" in WORKER.read_text()
