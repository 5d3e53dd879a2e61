"""`ray-node leave` in a process namespace of its own: it ends the shards that it sees there."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.commands import CHECKOUT

_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
_LEAVE_S = 4
_DRAIN_S = 2
_SLACK_S = 3

# Stand-ins for a replica that never goes and a shard. A killed process ends a moment after the
# kill: waiting for it takes its whole minute only if it was not killed.
_SCRIPT = """
bash -c 'exec -a ray::ServeReplica:api:Ingress sleep 60' &
bash -c 'exec -a ray::ShardActor sleep 60' & shard=$!
sleep 0.2
sh "$1" leave
wait "$shard"
exit 0
"""


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder with a `ray` that takes a while for draining."""
    if subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("process namespaces need root on Linux")
    return tmp_path


def leave(commands: Path, ray: str) -> float:
    """Seconds until the shard had ended, with this script as `ray`."""
    program = commands / "ray"
    program.write_text(f"#!/bin/sh\n{ray}\n", encoding="ascii")
    program.chmod(0o755)
    began = time.monotonic()
    subprocess.run(
        [*_NAMESPACE, "bash", "-c", _SCRIPT, "-", str(CHECKOUT / "deploy/container/ray-node")],
        env=os.environ
        | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "RAY_ADDRESS": "head:6379",
            "WALLET_LEAVE_TIMEOUT_S": str(_LEAVE_S),
        },
        capture_output=True,
        timeout=60,
        check=True,
    )
    return time.monotonic() - began


def test_leaving_takes_no_longer_than_its_time_and_ends_the_shards(commands: Path) -> None:
    took_s = leave(commands, f"sleep {_DRAIN_S}")

    assert _LEAVE_S - 1 <= took_s <= _LEAVE_S + _SLACK_S  # not _DRAIN_S + _LEAVE_S


def test_a_node_that_can_not_be_drained_leaves_at_once(commands: Path) -> None:
    took_s = leave(commands, "echo 'no head' >&2; exit 1")

    assert took_s < _SLACK_S
