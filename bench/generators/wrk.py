"""Closed loops with wrk: one thread of C that saturates what it measures and little else."""

import asyncio
import math
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from bench.generators.load_spec import LoadFailed, LoadSpec
from bench.generators.result import GRACE_S, LoadResult

HOW_TO_INSTALL: Final = (
    "wrk is not on PATH. Install it with the system's package manager: `apt-get install wrk`, "
    "`dnf install wrk`, `brew install wrk` or `nix-env -iA nixpkgs.wrk`."
)

_SCRIPT: Final = Path(__file__).with_suffix(".lua")
_RESPONSE_TIMEOUT_S: Final = 20
_END_TIMEOUT_S: Final = 5.0


def find_wrk() -> str | None:
    """Path of wrk, if it is installed."""
    return shutil.which("wrk")


async def closed_loop(load: LoadSpec) -> LoadResult:
    """Send for ``load.duration_s``, wait for every response, return the result.

    Raises:
        LoadFailed: wrk failed.
    """
    assert load.rate is None, "wrk has no open loop"
    process = await asyncio.create_subprocess_exec(
        *_command(load), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(load.duration_s + 2 * GRACE_S):
            found = await _follow(process)
    except TimeoutError:
        raise LoadFailed("wrk did not end in time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    values = msgspec.json.decode(found, type=dict[str, object])
    return msgspec.convert(
        {"generator": "wrk", "connections": load.connections, **values}, LoadResult
    )


def _command(load: LoadSpec) -> list[str]:
    wrk = find_wrk()
    if wrk is None:
        raise LoadFailed(HOW_TO_INSTALL)
    headers = [argument for header in load.headers for argument in ("-H", header)]
    return [
        wrk,
        "-t1",
        f"-c{load.connections}",
        f"-d{math.ceil(load.duration_s + GRACE_S)}s",
        f"-T{_RESPONSE_TIMEOUT_S}s",
        *headers,
        "-s",
        str(_SCRIPT),
        load.url,
        "--",
        load.script_file,
        str(load.duration_s),
        load.mode,
        load.key_prefix,
    ]


async def _follow(process: asyncio.subprocess.Process) -> str:
    """Read wrk's output to its end; interrupt it once it prints that all responses are in."""
    assert process.stdout is not None
    assert process.stderr is not None
    output: list[str] = []
    async for raw in process.stdout:
        line = raw.decode(errors="replace").rstrip()
        output.append(line)
        if line == "DRAINED":
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
    errors = (await process.stderr.read()).decode(errors="replace")
    async with asyncio.timeout(_END_TIMEOUT_S):
        await process.wait()
    for line in output:
        if line.startswith("RESULT "):
            return line.removeprefix("RESULT ")
    raise LoadFailed(f"wrk reported nothing: {' '.join([*output, errors])[-500:]}")
