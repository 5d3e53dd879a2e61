"""Runs shell commands the way an operator does."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[2]

_OUTPUT_MAX: Final = 20_000


def run_command(
    command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None
) -> str:
    """Run ``command`` in the checkout and return its output; AssertionError with it on failure.

    ``env``: its complete environment; None: that of this process.
    """
    done = subprocess.run(
        command,
        env=env,
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    said = f"{done.stdout[-_OUTPUT_MAX:]}\n{done.stderr[-_OUTPUT_MAX:]}"
    assert done.returncode == 0, f"{' '.join(command)}:\n{said}"
    return done.stdout
