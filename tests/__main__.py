"""Run the tests: most of them in parallel, then those that start the whole service, in turn.

`python -m tests` runs everything. Arguments are pytest's: `python -m tests tests/unit -k money`.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__).parent
_ROOT = _HERE.parent
_STACKS = ("e2e", "docker", "cluster", "drills")
"""Folders whose tests start the whole service: two at a time would disturb each other."""
_PARALLEL = ("--numprocesses", "logical", "--maxprocesses", "8", "--dist", "worksteal")
_WITH_VALUE = {"-k", "-m", "-p", "-c", "-o", "-W", "-n", "--deselect", "--ignore"}
_CHOSEN = ("-n", "--numprocesses")
"""Options with which the user sets the number of processes."""
_ONE_PROCESS = {"--pdb", "-s", "--capture=no", "--collect-only", "--co"}
"""Options that show live output of a process."""
_OK, _NOTHING_COLLECTED = 0, 5


class Arguments(NamedTuple):
    """What to run and how."""

    places: list[str]
    """Folders, files and test ids."""
    options: list[str]


def parse(arguments: list[str]) -> Arguments:
    """Separate paths from options."""
    parsed = Arguments([], [])
    takes_value = False
    for argument in arguments:
        is_place = not takes_value and (_ROOT / argument.partition("::")[0]).exists()
        (parsed.places if is_place else parsed.options).append(argument)
        takes_value = argument in _WITH_VALUE
    return parsed


def runs(arguments: list[str]) -> list[list[str]]:
    """The arguments of each run of pytest."""
    places, options = parse(arguments)
    folders = _folders_of(places)
    starts_stack = [place for place in folders if _folder(place) in _STACKS]
    others = [place for place in folders if _folder(place) not in _STACKS]
    # A worker takes seconds to start: more than the tests of one file do.
    is_worth_it = any((_ROOT / place).is_dir() for place in others)
    decided = any(one.startswith(_CHOSEN) or one in _ONE_PROCESS for one in options)
    workers = _PARALLEL if is_worth_it and not decided else ()
    return [
        [*extra, *options, *group]
        for extra, group in ((workers, others), ((), starts_stack))
        if group
    ]


def _folders_of(places: list[str]) -> list[str]:
    """Each folder of `tests/` by itself where all of them are meant."""
    asked = places or ["tests"]
    every = sorted({str(path.parent.relative_to(_ROOT)) for path in _HERE.glob("*/test_*.py")})
    return [
        one
        for place in asked
        for one in (every if (_ROOT / place).resolve() in (_HERE, _ROOT) else [place])
    ]


def _folder(place: str) -> str:
    path = (_ROOT / place.partition("::")[0]).resolve()
    return path.relative_to(_HERE).parts[0] if path.is_relative_to(_HERE) else ""


def main(arguments: list[str]) -> int:
    """The first code of a run that failed; that of an empty run only if all were empty."""
    codes = [
        subprocess.run([sys.executable, "-m", "pytest", *run], cwd=_ROOT, check=False).returncode
        for run in runs(arguments)
    ]
    failed = [code for code in codes if code not in (_OK, _NOTHING_COLLECTED)]
    return (failed or sorted(codes))[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
