"""Starts the deployer as a process of its own, with the environment that Ray Serve reads."""

import sys

from deploy.local.processes import ProcessRecord, spawn
from deploy.local.ray_environment import serve_environment
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings


def spawn_deployer(action: str, settings: Settings, home: StateDirectory) -> ProcessRecord:
    """Start `deploy` or `drain`; its log tells what went wrong in its last line with `Error`."""
    log = home.log_of(action)
    log.unlink(missing_ok=True)
    return spawn(
        action,
        [sys.executable, "-m", "deploy.local.serve_deployer", action],
        log_file=log,
        environment=serve_environment(settings, home),
    )
