"""Stops the test run's servers when it ends, even if it is killed.

Our servers keep running when their parent ends. A watcher process holds the other end of a pipe:
when the test run ends without cleaning up (SIGKILL, a crash), the pipe closes and the watcher
stops the servers.
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
    """In this context, the end of the run stops `process` and removes `folders`."""
    arguments = process.model_dump_json(), *map(str, folders)
    # Before the regular stop: the watcher then repeats it, which is harmless.
    with watched("tests.support.reaper", *arguments, timeout_s=_WATCHER_END_TIMEOUT_S):
        yield


@contextmanager
def watched(module: str, *arguments: str, timeout_s: float) -> Iterator[None]:
    """Run a module's clean-up at the end of this context, or when this process is killed.

    ``module`` runs as a program and waits until its standard input closes. ``timeout_s``: how long
    to wait for its clean-up.
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
    """Wait for the end of the run, then clean up."""
    import shutil

    sys.stdin.read()
    stop(ProcessRecord.model_validate_json(recorded))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2:])
