"""Machines of a cluster as network namespaces: an address, a /tmp and processes for each.

They hang on one bridge. A link is cut by pointing the neighbour entries of both ends to a hardware
address that nobody has: the frames are sent and nobody takes them. So neither end is notified,
unlike with a killed process or with a link that is down, for which a kernel reports errors.

The namespaces belong to the process that made them, inside of the namespaces that
`tests.cluster.__main__` enters first. They end with their processes: nothing is left behind.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

_SUBNET: Final = "10.213.47"
_BRIDGE: Final = "wallet0"
_NOWHERE: Final = "02:00:00:00:00:01"
"""A hardware address that no interface has."""
_TOOLS: Final = ("ip", "unshare", "nsenter", "mount")
_TOOL_TIMEOUT_S: Final = 20.0
_INIT: Final = """
import os, subprocess, sys
subprocess.run(["mount", "--bind", sys.argv[1], "/tmp"], check=True)
subprocess.Popen(["sleep", "infinity"])
print("ready", flush=True)
while True:
    os.wait()  # orphans
"""
"""The first process of a machine."""

INSIDE: Final = "WALLET_TEST_NETWORK"
"""Set where this process has a network of its own, which may be changed."""


def unavailable_reason() -> str | None:
    """Why this machine can't have such networks; None if it can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"network namespaces need {', '.join(missing)} (Debian: iproute2, util-linux)"
    probe = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    probe += ["ip", "link", "add", _BRIDGE, "type", "bridge"]
    done = subprocess.run(
        probe, capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, check=False
    )
    if done.returncode:
        return f"no network namespace with a bridge can be made here ({done.stderr.strip()})"
    return None


class Network:
    """A bridge with this process on it as number 1, and its machines."""

    def __init__(self) -> None:
        assert os.environ.get(INSIDE), "run it with `make cluster-test`"
        self.address = address_of(1)
        self.machines: list[Machine] = []
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", _BRIDGE, "type", "bridge")
        _run("ip", "address", "add", f"{self.address}/24", "dev", _BRIDGE)
        _run("ip", "link", "set", _BRIDGE, "up")

    def add_machine(self, name: str, folder: Path) -> "Machine":
        """``folder``: becomes the machine's /tmp."""
        machine = Machine(name, address_of(len(self.machines) + 11), folder)
        self.machines.append(machine)
        return machine

    def cut(self, machine: "Machine", *others: "Machine") -> None:
        """Drop every packet between a machine and those others; and all, if none is given."""
        for other in others or [one for one in self.machines if one is not machine]:
            machine.lose_way_to(other.address)
            other.lose_way_to(machine.address)
        if not others:
            machine.lose_way_to(self.address)
            _neighbour([], _BRIDGE, machine.address, lost=True)

    def heal(self, machine: "Machine") -> None:
        """End every cut of a machine."""
        for other in self.machines:
            if other is not machine:
                machine.find_way_to(other.address)
                other.find_way_to(machine.address)
        machine.find_way_to(self.address)
        _neighbour([], _BRIDGE, machine.address, lost=False)

    def close(self) -> None:
        for machine in self.machines:
            machine.close()
        _run("ip", "link", "delete", _BRIDGE)


class Machine:
    """A namespace with one interface and a /tmp of its own."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # Its processes see each other only, as Ray expects. This process sees all of them.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation=private", "--pid", "--fork",
             "--mount-proc", "--kill-child", sys.executable, "-c", _INIT, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        (self._init,) = psutil.Process(self._holder.pid).children()
        link = f"w{address.rpartition('.')[2]}"
        _run("ip", "link", "add", link, "master", _BRIDGE, "up", "type", "veth",
             "peer", "name", "eth0", "netns", str(self._init.pid))  # fmt: skip
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def inside(self, command: Sequence[str]) -> list[str]:
        """``command`` as it is started on this machine."""
        return ["nsenter", "--net", "--mount", "--pid", f"--target={self._init.pid}", *command]

    def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        return _run(*self.inside(command), environment=environment)

    def lose_way_to(self, address: str) -> None:
        _neighbour(self.inside([]), "eth0", address, lost=True)

    def find_way_to(self, address: str) -> None:
        _neighbour(self.inside([]), "eth0", address, lost=False)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


def address_of(number: int) -> str:
    return f"{_SUBNET}.{number}"


def _neighbour(inside: list[str], device: str, address: str, *, lost: bool) -> None:
    if lost:
        state = ("lladdr", _NOWHERE, "nud", "permanent")
        _run(*inside, "ip", "neighbour", "replace", address, "dev", device, *state)
        return
    # It is asked for again with the next packet. There may be no entry.
    command = [*inside, "ip", "neighbour", "delete", address, "dev", device]
    subprocess.run(command, capture_output=True, timeout=_TOOL_TIMEOUT_S, check=False)


def _run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_TOOL_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout
