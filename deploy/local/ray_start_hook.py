"""Changes what `ray start` does. Ray calls it because RAY_START_HOOK names it."""

import os
from typing import Any, Final

from ray._private.utils import get_num_cpus

from deploy.local.scheduling_policy import use_batch_scheduling

REDIS_PASSWORD_VARIABLE: Final = "RAY_REDIS_PASSWORD"  # noqa: S105 - the variable's name
STARTS_VARIABLE: Final = "RAY_worker_maximum_startup_concurrency"


def prepare(parameters: Any, head: bool) -> None:
    """Called before a node's processes start: no Ray Client server, SCHED_BATCH for all, and only
    half of the CPUs for workers that start.

    Ray Client is not used, and its server takes 1.5 s and 100 MB; `ray start` has no option for
    this. All processes of the node inherit the scheduling policy, including HAProxy.

    A head reads the address of its Redis from the environment, but not the password, which `ray
    start` takes as an argument only. Here it is read like the address.

    Ray starts as many workers at a time as the node has CPUs. Each takes a whole one for a second,
    so requests of the running version would wait behind them (decision 0061).
    """
    if head:
        parameters.ray_client_server_port = None
        if password := os.environ.get(REDIS_PASSWORD_VARIABLE):
            parameters.redis_password = password
    cpus = parameters.num_cpus or get_num_cpus()
    os.environ.setdefault(STARTS_VARIABLE, str(max(1, int(cpus) // 2)))
    use_batch_scheduling()
