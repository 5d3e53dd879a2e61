"""A Redis server, in which the head of a cluster keeps the state of the GCS."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PORT: Final = 6399


@contextmanager
def redis_server(address: str, folder: Path, password: str) -> Iterator[str]:
    """HOST:PORT of a server that appends every change to a file; empty without redis-server.

    Set up as docs/operating/cluster.md says.
    """
    program = shutil.which("redis-server")
    if program is None:
        yield ""
        return
    arguments = {
        "bind": address,
        "port": str(_PORT),
        "dir": str(folder),
        "requirepass": password,
        "appendonly": "yes",
        "maxmemory-policy": "noeviction",
    }
    options = [one for name, value in arguments.items() for one in (f"--{name}", value)]
    server = subprocess.Popen(
        [program, *options, "--save", ""],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"{address}:{_PORT}"
    finally:
        server.kill()
        server.wait()
