"""Generates a load with wrk or, if it is not available, with Python."""

import asyncio
import sys

import msgspec

from bench.generators import wrk
from bench.generators.load_spec import LoadFailed, LoadSpec
from bench.generators.result import GRACE_S, LoadResult

PYTHON_GENERATOR_NOTE = (
    "The closed loops run on the Python generator, which takes CPU from the service that it "
    "measures: throughput is understated and latency overstated. "
)


async def generate(load: LoadSpec, *, wrk_allowed: bool = True) -> LoadResult:
    """Closed loops with wrk if it may be used, everything else with Python.

    Raises:
        LoadFailed: the generator failed.
    """
    if load.rate is None and wrk_allowed:
        return await wrk.closed_loop(load)
    return await _python(load)


async def _python(load: LoadSpec) -> LoadResult:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.generators.python",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(load.duration_s + 2 * GRACE_S):
            output, errors = await process.communicate(msgspec.json.encode(load))
    except TimeoutError:
        raise LoadFailed("the Python generator did not end in time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LoadFailed(f"the Python generator failed: {errors.decode()[-500:]}")
    return msgspec.json.decode(output, type=LoadResult)
