"""Inject faults into the service under load and check ledger consistency: make chaos

python -m tests.chaos [--seed 7] [--only kill-shard,nats-stop] [--quick] [--write]
"""

import argparse
import asyncio
import os
import platform
import secrets
import sys
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from rich.console import Console

from tests.chaos.faults import FAULTS, QUICK, Fault, Scale
from tests.chaos.report import show, write_page
from tests.chaos.rounds import Result, run_round
from tests.chaos.stack import ChaosStack, running_stack
from tests.support.checker import run_checker

_TOGETHER: Final = 3
"""Faults at once."""
_TOGETHER_ROUNDS: Final = 3
_WIDTH: Final = 160
"""Table width without a terminal."""


def rounds_of(seed: str, names: Sequence[str], *, quick: bool) -> list[list[Fault]]:
    """Each fault alone, then several at once, then some single faults again."""
    random = Random(f"{seed} rounds")
    chosen = [one for one in FAULTS if (one.name in names if names else one.quick or not quick)]
    each = [[one] for one in chosen]
    if names:
        return each
    able = [one for one in chosen if one.several]
    together = [random.sample(able, _TOGETHER) for _ in range(1 if quick else _TOGETHER_ROUNDS)]
    again = [[one] for number in (2, 3) for one in chosen if one.times >= number]
    return each + together + ([] if quick else again)


async def chaos(
    seed: str,
    rounds: Sequence[Sequence[Fault]],
    scale: Scale,
    console: Console,
    *,
    seconds: float,
) -> list[Result]:
    """Run rounds, starting none after ``seconds``, then check ledger consistency."""
    results: list[Result] = []
    until = time.monotonic() + seconds
    console.print("Starting the service, behind a proxy …")
    async with running_stack() as stack:
        for number, faults in enumerate(rounds, start=1):
            if time.monotonic() > until:
                console.print(f"Time limit reached: {len(rounds) - len(results)} rounds skipped.")
                break
            title = " + ".join(fault.name for fault in faults)
            console.print(f"{number}/{len(rounds)} {title} …", highlight=False)
            began = time.monotonic()
            result = await run_round(stack, faults, name=f"r{number}", seed=seed, scale=scale)
            results.append(result)
            _print_result(console, result, time.monotonic() - began)
        await _check_all(stack, results, console)
    return results


def _print_result(console: Console, result: Result, took_s: float) -> None:
    back = "never" if result.back_s is None else f"{result.back_s:.1f} s"
    errors = ", ".join(f"{count} × {code}" for code, count in result.errors.most_common())
    console.print(
        f"    {took_s:.0f} s: {result.requests:,} requests, back after {back}, longest wait "
        f"{result.longest_s:.1f} s, {errors or 'no errors'}"
        + (f", missed: {', '.join(result.missed)}" if result.missed else ""),
        highlight=False,
    )
    for violation in result.violations:
        console.print(f"    {violation}", style="red", highlight=False, soft_wrap=True)


async def _check_all(stack: ChaosStack, results: Sequence[Result], console: Console) -> None:
    """Run the checker on all data; each violation is assigned to the round of its wallet."""
    console.print("Checking everything …")
    report = await run_checker(
        stack.database_url,
        stack.nats_url,
        (one for result in results for one in result.history),
    )
    for line in report.lines:
        console.print(f"    {line}", highlight=False, soft_wrap=True)
    for line in report.violations:
        of = next((one for one in results if any(w in line for w in one.wallets)), results[-1])
        if line not in of.violations:
            of.violations.append(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="", help="default: random")
    parser.add_argument("--only", default="", help="comma-separated fault names")
    parser.add_argument("--quick", action="store_true", help="about two minutes")
    parser.add_argument(
        "--write", action="store_true", help="update specification/failure-results.md"
    )
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="start no round after this time"
    )
    options = parser.parse_args()
    seed = options.seed or str(secrets.randbelow(10**6))
    names = [name for name in options.only.split(",") if name]
    unknown = set(names) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(
            f"unknown fault: {', '.join(unknown)}; choose from: "
            + ", ".join(fault.name for fault in FAULTS)
        )
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    console.print(f"Seed {seed}")
    began = time.monotonic()
    rounds = rounds_of(seed, names, quick=options.quick)
    scale = QUICK if options.quick else Scale()
    results = asyncio.run(chaos(seed, rounds, scale, console, seconds=60 * options.minutes))
    show(console, results)
    violations = sum(len(result.violations) for result in results)
    about = (
        f"Seed {seed}, {len(results)} rounds in {(time.monotonic() - began) / 60:.0f} minutes, "
        f"{sum(result.requests for result in results):,} requests by 20 clients, on "
        f"{os.cpu_count()} cores ({platform.system()} {platform.machine()}) that the clients, the "
        f"proxy and the servers share. Violations: {violations}."
    )
    console.print(about, highlight=False)
    if options.write:
        write_page(about, results)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
