"""Processes that outlive the command that starts them, and how they are found and stopped again.

A process is recorded by its pid and by the moment it was born. A pid alone is reused by the
system sooner or later, so a record whose birth doesn't match names nobody, and nobody is signalled.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from deploy.local.unix_accounts import Account

# Popen warns when it is collected while its process runs; ours are meant to run on.
_spawned: list["subprocess.Popen[bytes]"] = []

_POLL_S = 0.02
_KILL_WAIT_S = 5.0


class ProcessRecord(BaseModel):
    """One process, for certain: `start_time` tells it from a later one with the same pid."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    start_time: str = Field(validation_alias=AliasChoices("start_time", "birth"))
    """A stack that the release before started says ``birth``."""


def record(name: str, pid: int) -> ProcessRecord:
    """Record a process that runs now; raises psutil.NoSuchProcess if it doesn't."""
    return ProcessRecord(name=name, pid=pid, start_time=_start_time_of(pid))


def is_alive(process: ProcessRecord) -> bool:
    """Whether exactly that process still runs. A zombie doesn't: it only waits to be reaped."""
    return lookup(process) is not None


def lookup(process: ProcessRecord) -> psutil.Process | None:
    """The living process that the record means, if there is one."""
    try:
        if _start_time_of(process.pid) != process.start_time:
            return None
        found = psutil.Process(process.pid)
        return None if found.status() == psutil.STATUS_ZOMBIE else found
    except psutil.NoSuchProcess:
        return None


def spawn(
    name: str,
    command: Sequence[str],
    *,
    log_file: Path,
    environment: Mapping[str, str],
    account: Account | None = None,
    directory: Path = Path("/"),
) -> ProcessRecord:
    """Start a process in a session of its own, so that Ctrl-C here doesn't reach it there.

    Its output is appended to `log_file`. `account` is whom it runs as, if not as ourselves.
    """
    identity = account.popen_arguments() if account else {}
    with log_file.open("ab") as log:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            **identity,
        )
    _spawned.append(child)
    return record(name, child.pid)


def process_tree(process: ProcessRecord) -> list[psutil.Process]:
    """The process and everything that descends from it, or nothing if it has gone."""
    root = lookup(process)
    if root is None:
        return []
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def stop(
    process: ProcessRecord,
    *,
    signals: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 10.0),),
) -> bool:
    """Stop the process and its descendants; false if it wasn't running.

    Each signal of `signals` goes to the process alone, which has that many seconds to end its
    descendants and itself; whatever is left after the last is killed.
    """
    members = process_tree(process)
    if not members:
        return False
    for number, grace_s in signals:
        if members[0].is_running():
            _send(members[0], number)
        # Those it starts while it stops must not be missed.
        members += [late for late in process_tree(process) if late not in members]
        if _all_ended(members, timeout_s=grace_s):
            return True
    kill(members)
    return True


def kill(members: Sequence[psutil.Process]) -> None:
    """Kill processes and wait, bounded, until they are gone."""
    for member in _living(members):
        _send(member, signal.SIGKILL)
    _all_ended(members, timeout_s=_KILL_WAIT_S)


def processes_with_env(variable: str, value: str) -> list[psutil.Process]:
    """Living processes, except this one, whose environment has `variable`=`value`.

    Finds those that left their family: an orphan's parent is the system, but its environment
    still says which stack started it.
    """
    found = []
    for candidate in psutil.process_iter():
        if candidate.pid == os.getpid():
            continue
        try:
            if candidate.environ().get(variable) == value:
                found.append(candidate)
        except psutil.Error:
            continue  # gone meanwhile, or somebody else's: not ours either way
    return _living(found)


def wait_until(holds: Callable[[], bool], *, timeout_s: float) -> bool:
    """Wait, bounded, until `holds()`; whether it did."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _all_ended(members: Sequence[psutil.Process], *, timeout_s: float) -> bool:
    ended = wait_until(lambda: not _living(members), timeout_s=timeout_s)
    _reap()  # the last of them may have ended since _living() did so
    return ended


def _living(members: Sequence[psutil.Process]) -> list[psutil.Process]:
    _reap()
    return [member for member in members if _is_living(member)]


def _is_living(member: psutil.Process) -> bool:
    try:
        return member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(member: psutil.Process, number: signal.Signals) -> None:
    try:
        member.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _reap() -> None:
    """Take note of children that ended, so that they don't stay behind as zombies."""
    _spawned[:] = [child for child in _spawned if child.poll() is None]


def _start_time_of(pid: int) -> str:
    if sys.platform != "linux":
        return f"{psutil.Process(pid).create_time():.3f}"
    # The kernel's own clock ticks. The create time that psutil derives from them moves whenever
    # the system clock is set, and then a living process would look like a stranger.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError) as gone:
        raise psutil.NoSuchProcess(pid) from gone
    start_ticks = stat.rpartition(")")[2].split()[19]
    return f"{boot}:{start_ticks}"
