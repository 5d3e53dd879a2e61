"""Soft-stops HAProxy before the applications are removed.

Serve alone would remove the routes first and keep listening: new clients would get a misleading
404. After HAProxy's soft stop new connections are refused, so a client knows that nothing was
applied, and requests in flight finish.
"""

import os
import signal
from pathlib import Path

import psutil

from deploy.local.haproxy_start import HOLDER
from deploy.local.processes import processes_with_env
from deploy.local.ray_environment import HAPROXY_CONFIG_VARIABLE, STACK_VARIABLE


def soft_stop_haproxy() -> None:
    """Soft-stop the HAProxy of the stack that this process belongs to, if it has one.

    The applications must be removed within the next seconds: Serve replaces a HAProxy after three
    failed checks in a row.
    """
    config = os.environ.get(HAPROXY_CONFIG_VARIABLE)
    if config is None:
        return
    for holder in Path(config).parent.glob(f"*/{HOLDER}"):
        holder.unlink(missing_ok=True)  # So that no standby starts.
    folder = f"{Path(config).parent}/"
    for process in processes_with_env(STACK_VARIABLE, os.environ[STACK_VARIABLE]):
        try:
            if any(argument.startswith(folder) for argument in process.cmdline()):
                process.send_signal(signal.SIGUSR1)
        except psutil.NoSuchProcess:
            continue
