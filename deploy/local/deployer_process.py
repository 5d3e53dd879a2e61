"""Starts the deployer in its own process, with the environment that Ray Serve reads."""

import sys

from deploy.local.processes import ProcessRecord, spawn
from deploy.local.ray_environment import serve_environment
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings


def spawn_deployer(action: str, settings: Settings, state_dir: StateDirectory) -> ProcessRecord:
    """Start `deploy` or `drain`. On failure the last `Error` line of its log has the cause."""
    log = state_dir.log_of(action)
    log.unlink(missing_ok=True)
    return spawn(
        action,
        [sys.executable, "-m", "deploy.local.serve_deployer", action],
        log_file=log,
        environment=serve_environment(settings, state_dir),
    )
