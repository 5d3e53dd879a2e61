"""Baseline (a): the row-locking web service, under uvicorn with 1 and 2 workers."""

import asyncio
import os
import signal
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uuid6

from bench.baselines.baseline_result import Baseline, check
from bench.baselines.database import findings, new_wallet
from bench.generators.generate import generate
from bench.generators.load_spec import LoadFailed, LoadSpec
from bench.generators.result import LoadResult
from bench.scenarios import BY_NAME, script_of
from deploy.local.ports import free_port

WORKERS: Final = (1, 2)

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@asynccontextmanager
async def running_baseline(database_url: str, *, workers: int) -> AsyncIterator[str]:
    """Run the baseline; yields its URL."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "uvicorn",
        "bench.baselines.fastapi_app:app",
        f"--port={port}",
        f"--workers={workers}",
        "--loop=uvloop",
        "--http=httptools",
        "--no-access-log",
        "--log-level=warning",
        env=os.environ | {"BASELINE_DATABASE_URL": database_url},
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await _wait_until_healthy(url)
        yield url
    finally:
        await _stop(process)


async def measure(
    url: str,
    database_url: str,
    *,
    workers: int,
    connections: int,
    duration_s: float,
    wrk_allowed: bool,
) -> Baseline:
    """`hot_unary`, with the same requests as our own service.

    Raises:
        LoadFailed: the load could not be generated.
        AuditFailed: stored data differs from the responses.
    """
    wallet = await new_wallet(database_url)
    script = script_of(BY_NAME["hot_unary"], [wallet])
    with tempfile.TemporaryDirectory(prefix="wallet-bench-") as folder:
        file = Path(folder) / "script"
        script.write(file)
        load = LoadSpec(
            url=url,
            script_file=str(file),
            mode=script.mode,
            connections=connections,
            duration_s=duration_s,
            key_prefix=uuid6.uuid7().hex,
        )
        result = await generate(load, wrk_allowed=wrk_allowed)
    check("fastapi", await findings(database_url, wallet, result.accepted))
    return _figures(result, workers)


def _figures(result: LoadResult, workers: int) -> Baseline:
    per_s = round(result.accepted / result.duration_s, 1)
    return Baseline(
        concurrency=result.connections,
        requests_per_s=per_s,
        transfers_per_s=per_s,
        p50_ms=round(result.latency.p50_ms, 3),
        p95_ms=round(result.latency.p95_ms, 3),
        p99_ms=round(result.latency.p99_ms, 3),
        max_ms=round(result.latency.max_ms, 3),
        errors=result.errors,
        variant=f"{workers} worker{'s' if workers > 1 else ''}",
    )


async def _wait_until_healthy(url: str) -> None:
    for _ in range(round(_START_TIMEOUT_S / _POLL_S)):
        if await asyncio.to_thread(_is_healthy, url):
            return
        await asyncio.sleep(_POLL_S)
    raise LoadFailed("the FastAPI baseline did not start")


def _is_healthy(url: str) -> bool:
    try:
        with _direct.open(f"{url}/healthz", timeout=1) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End uvicorn and its workers: they are alone in their session."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
