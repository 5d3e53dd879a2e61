"""CPU and memory of the service's processes, by component."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import msgspec
import psutil

from bench.service import Service

_BY_TITLE: Final = (
    ("ray::ShardActor", "shards"),
    ("ray::ServeReplica:api", "ingress"),
    ("ray::ProjectionActor", "projections"),
    ("haproxy", "haproxy"),
    ("nats-server", "nats"),
    ("postgres", "postgres"),
)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot: CPU seconds since each process began, by (pid, start time), and its component."""

    cpu_s: dict[tuple[int, float], float]
    parts: dict[tuple[int, float], str]

    def since(self, earlier: "Usage") -> dict[str, float]:
        """CPU seconds by part, of processes that are in this snapshot."""
        used: dict[str, float] = defaultdict(float)
        for key, seconds in self.cpu_s.items():
            used[self.parts[key]] += seconds - earlier.cpu_s.get(key, 0.0)
        return {part: round(seconds, 3) for part, seconds in sorted(used.items())}


def part_of(title: str) -> str:
    """The component of a process, by its title (or command line)."""
    for prefix, part in _BY_TITLE:
        if title.startswith(prefix) or f"/{prefix} " in title:
            return part
    return "ray"


def usage_of(service: Service) -> Usage:
    """CPU seconds of the service's processes."""
    cpu_s: dict[tuple[int, float], float] = {}
    parts: dict[tuple[int, float], str] = {}
    for process in service.processes():
        try:
            with process.oneshot():
                key = (process.pid, process.create_time())
                times = process.cpu_times()
                parts[key] = part_of(_title(process))
                cpu_s[key] = times.user + times.system
        except psutil.Error:
            continue  # ended meanwhile
    return Usage(cpu_s=cpu_s, parts=parts)


def memory_of(processes: Iterable[psutil.Process]) -> dict[str, int]:
    """Resident bytes by part. Shared pages are counted once, if the system reports them."""
    resident: dict[str, int] = defaultdict(int)
    for process in processes:
        try:
            resident[part_of(_title(process))] += _resident(process)
        except psutil.Error:
            continue
    return dict(sorted(resident.items()))


def _resident(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline()) + " "
