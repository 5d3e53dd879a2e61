"""Processes that take turns on a busy CPU instead of interrupting each other."""

import logging
import os
import sys

_log = logging.getLogger(__name__)


def use_batch_scheduling() -> None:
    """Let this thread, and what it starts from now on, interrupt nobody when it is woken.

    A request passes through HAProxy, a replica and a shard, and back. Each hop woke the next,
    which took the CPU at once, did its one request and slept again, while the others' work lay
    half done: on busy cores that is many small batches. Woken in turn (`SCHED_BATCH`), each finds
    more to do at a time. On idle cores nothing changes. Needs no rights; where it can't be had
    (another system, a sandbox without the call) the service is slower, not wrong. Measured in
    `specification/decisions/0031-the-services-processes-take-turns.md`.
    """
    if sys.platform != "linux":
        return
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as refused:
        _log.warning("scheduling policy not applied: %s", refused)
