"""Runs the consistency checker on everything: Postgres, the stream and the clients' record."""

import asyncio
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from tests.support.backlog import wait_for_rest
from tests.support.commands import CHECKOUT
from verification.facts import ClientCall

_VIOLATION: Final = "rule "


class CheckerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the checker printed."""

    lines: list[str]
    violations: list[str]
    """One line each. Not empty if the checker could not check."""


async def run_checker(
    database_url: str, nats_url: str, calls: Iterable[ClientCall]
) -> CheckerReport:
    """Check a service without clients. ``calls``: the complete record of all clients."""
    await wait_for_rest(database_url)
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder) / "history.jsonl"
        with history.open("wb") as file:
            file.writelines(msgspec.json.encode(one) + b"\n" for one in calls)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "verification"),
            *("--database-url", database_url),
            *("--nats-url", nats_url),
            *("--history", str(history)),
            *("--lag-max-s", "0"),
            cwd=CHECKOUT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    lines = said.decode().splitlines()
    found = [line for line in lines if line.startswith(_VIOLATION)]
    if process.returncode and not found:
        found = [f"the checker ended with {process.returncode}: {' '.join(lines[-3:])}"]
    return CheckerReport(lines=lines, violations=found)
