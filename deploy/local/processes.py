"""Starts processes that keep running after the command, and finds and stops them again.

A process is recorded by its pid and its start time. The system reuses pids, so a record whose start
time doesn't match refers to no process, and no process is signalled.
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

# Popen warns if it is garbage-collected while its process runs; these must keep running.
_spawned: list["subprocess.Popen[bytes]"] = []

_POLL_S = 0.02
_KILL_WAIT_S = 5.0


class ProcessRecord(BaseModel):
    """Identifies one process: `start_time` distinguishes it from a later one with the same pid."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    start_time: str = Field(validation_alias=AliasChoices("start_time", "birth"))
    """A stack started by the previous release has ``birth`` instead."""


def record(name: str, pid: int) -> ProcessRecord:
    """Record a running process; raises psutil.NoSuchProcess if it doesn't run."""
    return ProcessRecord(name=name, pid=pid, start_time=_start_time_of(pid))


def is_alive(process: ProcessRecord) -> bool:
    """Whether exactly that process still runs. A zombie doesn't count."""
    return lookup(process) is not None


def lookup(process: ProcessRecord) -> psutil.Process | None:
    """The running process of the record; None if it has ended."""
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
    """Start a process in its own session, so that Ctrl-C here doesn't reach it.

    Its output is appended to `log_file`. `account`: run as that account instead of the current.
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
    """The process and all of its descendants; empty if it has ended."""
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

    Each signal of `signals` is sent to the process only, which has that many seconds to end with
    its descendants. After the last signal all that are left are killed.
    """
    members = process_tree(process)
    if not members:
        return False
    for number, grace_s in signals:
        if members[0].is_running():
            _send(members[0], number)
        # Include processes that it starts while it stops.
        members += [late for late in process_tree(process) if late not in members]
        if _all_ended(members, timeout_s=grace_s):
            return True
    kill(members)
    return True


def kill(members: Sequence[psutil.Process]) -> None:
    """Kill processes and wait, bounded, until they have ended."""
    for member in _living(members):
        _send(member, signal.SIGKILL)
    _all_ended(members, timeout_s=_KILL_WAIT_S)


def processes_with_env(variable: str, value: str) -> list[psutil.Process]:
    """Running processes whose environment has `variable`=`value`, and their descendants.

    Finds orphans, too: their parent is init, but their environment still names the stack that
    started them. Descendants, since a process may lose the environment that it was started with:
    Ray's agents overwrite theirs with their title. This process is none of them.
    """
    found = []
    children: dict[int, list[psutil.Process]] = {}
    for candidate in psutil.process_iter():
        if candidate.pid == os.getpid():
            continue
        try:
            children.setdefault(candidate.ppid(), []).append(candidate)
            if candidate.environ().get(variable) == value:
                found.append(candidate)
        except psutil.Error:
            continue  # it has ended, or belongs to another user
    known = set(found)
    for member in found:  # grows meanwhile
        others = [one for one in children.get(member.pid, ()) if one not in known]
        known.update(others)
        found.extend(others)
    return _living(found)


def wait_until(holds: Callable[[], bool], *, timeout_s: float) -> bool:
    """Wait until `holds()` is true, at most `timeout_s`; whether it became true."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _all_ended(members: Sequence[psutil.Process], *, timeout_s: float) -> bool:
    ended = wait_until(lambda: not _living(members), timeout_s=timeout_s)
    _reap()  # the last may have ended after _living() reaped
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
    """Reap children that ended, so that they don't stay zombies."""
    _spawned[:] = [child for child in _spawned if child.poll() is None]


def _start_time_of(pid: int) -> str:
    if sys.platform != "linux":
        return f"{psutil.Process(pid).create_time():.3f}"
    # The kernel's clock ticks. The create time that psutil derives from them changes when the
    # system clock is set, and then a running process would no longer match its record.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError) as ended:
        raise psutil.NoSuchProcess(pid) from ended
    start_ticks = stat.rpartition(")")[2].split()[19]
    return f"{boot}:{start_ticks}"
