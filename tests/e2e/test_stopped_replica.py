"""A replica that was stopped by a controller which then was lost: it is replaced by itself."""

import json
import sys
from typing import Final

import psutil
import pytest

from deploy.local.processes import wait_until
from tests.e2e.api import Api
from tests.support.commands import run_command
from tests.support.running_service import RunningService

_REPLACED_S: Final = 60.0

# Nobody but the replica knows of it: as after the loss of the controller that asked for it.
_STOP: Final = """
import json, sys
import ray

ray.init(address="auto", namespace="serve", logging_level="ERROR", log_to_driver=False)
actors = ray.util.list_named_actors(all_namespaces=True)
names = [one["name"] for one in actors if sys.argv[1] in one["name"]]
replica = ray.get_actor(names[0], namespace="serve")
pid = ray.get(replica.__ray_call__.remote(lambda _: __import__("os").getpid()))
ray.get(replica.perform_graceful_shutdown.remote(), timeout=30)
print(json.dumps({"pid": pid, "replicas": len(names)}))
"""


def stop_one(service: RunningService, name: str, title: str) -> psutil.Process:
    """Shut one of the replicas down; its process goes on."""
    environment = service.processes(title)[0].environ()
    output = run_command([sys.executable, "-c", _STOP, name], env=environment, timeout_s=60)
    stopped = json.loads(output.splitlines()[-1])
    assert stopped["replicas"] == len(service.processes(title))
    return psutil.Process(stopped["pid"])


@pytest.mark.parametrize("deployment", ["api#Ingress", "projections#Projections"])
def test_a_replica_that_was_stopped_is_replaced(
    local_service: RunningService, api: Api, deployment: str
) -> None:
    title = f"ray::ServeReplica:{deployment.replace('#', ':')}"
    before = {process.pid for process in local_service.processes(title)}
    stopped = stop_one(local_service, deployment, title)
    assert stopped.pid in before

    def is_replaced() -> bool:
        now = {process.pid for process in local_service.processes(title)}
        return stopped.pid not in now and len(now) == len(before)

    assert wait_until(is_replaced, timeout_s=_REPLACED_S)
    assert wait_until(lambda: api.get("/readyz").status_code == 200, timeout_s=_REPLACED_S)
