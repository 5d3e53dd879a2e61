"""Starts the deployer as a process of its own, with the environment that Ray Serve reads."""

import sys

from serve_app.local.home import StateDirectory
from serve_app.local.processes import ProcessRecord, spawn
from serve_app.local.ray_environment import serve_environment
from wallet.settings import Settings


def spawn_deployer(action: str, settings: Settings, home: StateDirectory) -> ProcessRecord:
    """Start `deploy` or `drain`; its log tells what went wrong in its last line with `Error`."""
    log = home.log_of(action)
    log.unlink(missing_ok=True)
    return spawn(
        action,
        [sys.executable, "-m", "serve_app.local.deployer", action],
        log_file=log,
        environment=serve_environment(settings, home),
    )
