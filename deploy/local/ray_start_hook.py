"""Changes what `ray start` does. Ray calls it because RAY_START_HOOK names it."""

from typing import Any

from deploy.local.scheduling_policy import use_batch_scheduling


def prepare(parameters: Any, head: bool) -> None:
    """Called before a node's processes start: no Ray Client server, and SCHED_BATCH for all.

    Ray Client is not used, and its server takes 1.5 s and 100 MB; `ray start` has no option for
    this. All processes of the node inherit the scheduling policy, including HAProxy.
    """
    if head:
        parameters.ray_client_server_port = None
    use_batch_scheduling()
