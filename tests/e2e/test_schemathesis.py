"""The running service conforms to its OpenAPI document: schemathesis with all checks."""

import subprocess
import sys
from pathlib import Path

from tests.support.running_service import RunningService

_CONFIGURATION = Path(__file__).parent / "schemathesis.toml"
_CHECKOUT = Path(__file__).parents[2]
_RUN_MAX_S = 240


def test_the_service_keeps_what_its_description_promises(service: RunningService) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIGURATION)]
    command += ["run", f"{service.url}/openapi.json", "--checks", "all", "--seed", "1"]

    done = subprocess.run(
        [*command, "--no-color"],
        cwd=_CHECKOUT,
        capture_output=True,
        text=True,
        timeout=_RUN_MAX_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
