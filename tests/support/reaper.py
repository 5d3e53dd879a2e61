"""Servers that don't outlive the test run, not even one that is killed.

A server of ours is started to live on when its parent ends. For a test run that dies without
cleaning up (SIGKILL, a crash), a small watcher holds the other end of a pipe: when the pipe
closes, the run has ended, and the watcher stops what it was told to.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.processes import ProcessRecord, stop

_WATCHER_END_TIMEOUT_S = 30


@contextmanager
def killed_on_exit(process: ProcessRecord, *folders: Path) -> Iterator[None]:
    """While this lasts, the end of the run stops `process` and removes `folders`."""
    arguments = process.model_dump_json(), *map(str, folders)
    # Before the regular stop: then the watcher's work is the regular stop, done twice.
    with watched("tests.support.reaper", *arguments, timeout_s=_WATCHER_END_TIMEOUT_S):
        yield


@contextmanager
def watched(module: str, *arguments: str, timeout_s: float) -> Iterator[None]:
    """Run a module's clean-up at the end of this context, or when this process is killed.

    ``module`` is run as a program, and waits until its standard input closes. ``timeout_s``: for
    how long its clean-up is waited for.
    """
    watcher = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert watcher.stdin
        watcher.stdin.close()
        watcher.wait(timeout=timeout_s)


def watch(recorded: str, folders: list[str]) -> None:
    """Wait for the end of the run, then clean up after it."""
    import shutil

    sys.stdin.read()
    stop(ProcessRecord.model_validate_json(recorded))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2:])
