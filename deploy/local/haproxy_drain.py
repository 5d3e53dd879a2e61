"""Closes HAProxy's door before the applications leave.

Serve alone would take the routes away first and go on listening: new clients would get a
misleading 404. HAProxy's soft stop refuses them at once, which tells a client for certain that
nothing was applied, and finishes what it has.
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

    Within the next seconds the applications have to be gone: Serve replaces a HAProxy that it
    finds stopped three times in a row.
    """
    config = os.environ.get(HAPROXY_CONFIG_VARIABLE)
    if config is None:
        return
    for holder in Path(config).parent.glob(f"*/{HOLDER}"):
        holder.unlink(missing_ok=True)  # Nobody shall listen: no standby starts.
    folder = f"{Path(config).parent}/"
    for process in processes_with_env(STACK_VARIABLE, os.environ[STACK_VARIABLE]):
        try:
            if any(argument.startswith(folder) for argument in process.cmdline()):
                process.send_signal(signal.SIGUSR1)
        except psutil.NoSuchProcess:
            continue
