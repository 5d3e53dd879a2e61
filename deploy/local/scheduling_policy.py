"""The scheduling policy of a node's processes: SCHED_BATCH, without wake-up preemption."""

import logging
import os
import sys

_log = logging.getLogger(__name__)


def use_batch_scheduling() -> None:
    """Use SCHED_BATCH for this thread and its children: no wake-up preemption.

    A request passes through HAProxy, a replica and a shard, and back. By default each hop wakes
    the next, which preempts the running process, handles one request and sleeps again: many small
    batches on busy cores. Without preemption each process finds more requests when it runs. On
    idle cores nothing changes. No privileges are needed. Where the policy is not available
    (another system, a sandbox without the call) the service is only slower. Measured in
    `specification/decisions/0031-the-services-processes-take-turns.md`.
    """
    if sys.platform != "linux":
        return
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as refused:
        _log.warning("scheduling policy not applied: %s", refused)
