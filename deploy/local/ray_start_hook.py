"""What `ray start` does differently here. Ray calls it because RAY_START_HOOK names it."""

from typing import Any

from deploy.local.scheduling_policy import use_batch_scheduling


def prepare(parameters: Any, head: bool) -> None:
    """Before a node's processes start: no Ray Client server, and none interrupts another.

    Nobody here connects with Ray Client, and it takes 1.5 s and 100 MB; `ray start` has no option
    for this. The policy is inherited by everything that the node starts, HAProxy too.
    """
    if head:
        parameters.ray_client_server_port = None
    use_batch_scheduling()
