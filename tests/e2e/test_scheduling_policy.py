"""The scheduling policy (SCHED_BATCH or default) of the processes of a running stack."""

import os
import sys

import pytest

from deploy.local.processes import process_tree
from tests.support.running_service import RunningService

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the policy")


def policies(service: RunningService, server: str) -> dict[str, int]:
    if service.state_dir is None:
        pytest.skip("needs the processes of a local stack")
    members = process_tree(service.state_dir.load().processes[server])
    return {
        f"{member.pid} {member.name()}": os.sched_getscheduler(member.pid) for member in members
    }


def test_all_node_processes_run_under_sched_batch(service: RunningService) -> None:
    found = policies(service, "ray")

    assert any("haproxy" in name for name in found)
    assert any("ShardActor" in name for name in found)
    assert {name for name, policy in found.items() if policy != os.SCHED_BATCH} == set()


@pytest.mark.parametrize("server", ["postgres", "nats"])
def test_the_servers_that_everybody_waits_for_interrupt(
    service: RunningService, server: str
) -> None:
    found = policies(service, server)

    assert found
    assert {name for name, policy in found.items() if policy != os.SCHED_OTHER} == set()
