"""The Ray head of the local stack: one node, on loopback, in its own process.

`ray start --block` is the parent of all of Ray's processes. On SIGTERM it ends them and itself, and
if it dies otherwise its reaper ends them. So it is enough to record this one process.
"""

import shutil
import signal
import sysconfig
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.log_files import last_matching_line, tail
from deploy.local.processes import ProcessRecord, is_alive, spawn, stop, wait_until
from deploy.local.ray_environment import ray_temporary_folder, serve_environment
from deploy.local.state_dir import Stack, StateDirectory
from runtime.settings import Settings

_START_TIMEOUT_S = 90.0  # on a slow disk without Ray's files in the page cache
_STOP_TIMEOUT_S = 15.0
_STARTED = "Ray runtime started"

# Commands and responses are a few kilobytes and travel inside Ray's messages. The service doesn't
# use the object store, whose default size is a third of the memory.
_OBJECT_STORE_BYTES = 100_000_000


def start(settings: Settings, state_dir: StateDirectory, stack: Stack) -> ProcessRecord:
    """Start the head and return at once; `wait_until_ready` waits for it."""
    log = state_dir.log_of("ray")
    log.unlink(missing_ok=True)  # wait_until_ready reads only this start's output
    _remove_old_sessions(stack)
    _link_logs(state_dir, stack)
    return spawn(
        "ray",
        [str(_binary()), *_arguments(stack)],
        log_file=log,
        environment=serve_environment(settings, state_dir),
    )


def wait_until_ready(state_dir: StateDirectory, process: ProcessRecord) -> None:
    """Wait until drivers can connect; StackError with Ray's log message if it ends."""
    log = state_dir.log_of("ray")

    def ready_or_gone() -> bool:
        return bool(last_matching_line(log, _STARTED)) or not is_alive(process)

    in_time = wait_until(ready_or_gone, timeout_s=_START_TIMEOUT_S)
    if in_time and is_alive(process):
        return
    reported = last_matching_line(log, "Error", "ERR") or next(
        reversed(tail(log)), "no message in its log"
    )
    raise StackError(f"Ray did not start: {reported.strip()} (see {log}).")


def stop_head(process: ProcessRecord) -> bool:
    """End the head and all of its processes; false if it wasn't running."""
    return stop(process, signals=((signal.SIGTERM, _STOP_TIMEOUT_S),))


def _arguments(stack: Stack) -> list[str]:
    return [
        "start",
        "--head",
        "--block",
        f"--port={stack.ports['ray']}",
        f"--dashboard-agent-listen-port={stack.ports['ray_agent']}",
        f"--metrics-export-port={stack.ports['ray_metrics']}",
        # Any free port. The default range is the same for every cluster of the machine.
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        f"--temp-dir={ray_temporary_folder(stack)}",
        "--disable-usage-stats",
        # Each of these three is a Python process that takes a second of CPU to start and
        # 90–130 MB, and is not needed here: the web dashboard, copies of worker logs on the
        # driver's terminal, and the autoscaler.
        "--include-dashboard=false",
        "--include-log-monitor=false",
        "--no-monitor",
        "--log-style=record",
        "--log-color=false",
    ]


def _binary() -> Path:
    binary = Path(sysconfig.get_path("scripts")) / "ray"
    if not binary.exists():
        raise StackError(f"Ray is missing at {binary}. Remove .venv and run `make up` again.")
    return binary


def _remove_old_sessions(stack: Stack) -> None:
    """Ray and HAProxy create a folder per start and remove none. Keep the latest session's logs."""
    assert stack.sockets is not None, "assigned before Ray starts"
    shutil.rmtree(stack.sockets / "h", ignore_errors=True)
    folder = ray_temporary_folder(stack)
    latest = (folder / "session_latest").resolve()
    for session in folder.glob("session_2*"):
        if session != latest:
            shutil.rmtree(session, ignore_errors=True)


def _link_logs(state_dir: StateDirectory, stack: Stack) -> None:
    """Link `logs/ray` to the logs of Ray's latest session."""
    link = state_dir.logs / "ray"
    link.unlink(missing_ok=True)
    link.symlink_to(ray_temporary_folder(stack) / "session_latest" / "logs")
