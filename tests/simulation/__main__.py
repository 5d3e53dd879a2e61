"""Run seeds: `python -m tests.simulation --seeds 2000`, or one in full: `--seed 1234`."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenario import Outcome, run_seed
from tests.simulation.trace_report import format_history

_PORTION = 20


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.seed is not None:
        return _one(options)
    return _many(range(options.first, options.first + options.seeds), options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run one seed and print its history")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="with one rule broken")
    return parser.parse_args(arguments)


def _one(options: argparse.Namespace) -> int:
    outcome = _run(options.seed, options)
    for line in format_history(outcome):
        print(line)
    return 0 if outcome.ok else 1


def _run(seed: int, options: argparse.Namespace) -> Outcome:
    if options.mutation is None:
        return run_seed(seed)
    with MUTATIONS[options.mutation].applied() as make:
        return run_seed(seed, make=make)


def _many(seeds: range, options: argparse.Namespace) -> int:
    started = time.monotonic()
    bad: list[int] = []
    totals: Counter[str] = Counter()
    for report in _reports(seeds, options):
        totals.update(report.totals)
        bad += report.bad
        for line in report.lines:
            print(line, flush=True)
        _report_progress(totals["seeds"], len(seeds), started)
    took_s = time.monotonic() - started
    print(
        f"{totals['seeds']} seeds in {took_s:.0f} s ({len(seeds) / took_s * 60:.0f} a minute): "
        f"{totals['attempts']} calls, {totals['events']} events, {totals['unknown']} outcomes "
        f"unknown, {totals['faults_done']} faults, {len(bad)} seeds with violations"
    )
    if bad:
        print(f"again: make simulate SEED={bad[0]}")
    return 1 if bad else 0


class _Report:
    """Results of one worker for its share of the seeds."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.bad: list[int] = []
        self.lines: list[str] = []

    def add(self, outcome: Outcome) -> None:
        history = outcome.evidence.history or ()
        self.totals.update(
            seeds=1,
            attempts=outcome.attempts,
            events=outcome.events,
            faults_done=len(outcome.faults_done),
            unknown=sum(attempt.outcome == "unknown" for attempt in history),
        )
        if not outcome.ok:
            self.bad.append(outcome.seed)
            found = [*map(str, outcome.violations), *outcome.failures]
            self.lines.append(f"seed {outcome.seed}: {found[0]} ({len(found)} in all)")


def _portion(seeds: range, options: argparse.Namespace) -> _Report:
    report = _Report()
    for seed in seeds:
        report.add(_run(seed, options))
    return report


def _reports(seeds: range, options: argparse.Namespace) -> Iterator[_Report]:
    portions = [seeds[start : start + _PORTION] for start in range(0, len(seeds), _PORTION)]
    work = partial(_portion, options=options)
    if options.jobs == 1:
        yield from map(work, portions)
        return
    with ProcessPoolExecutor(options.jobs) as pool:
        yield from pool.map(work, portions)


def _report_progress(done: int, total: int, started: float) -> None:
    if sys.stderr.isatty():
        rate = done / (time.monotonic() - started) * 60
        print(f"\r{done}/{total} seeds, {rate:.0f} a minute ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
