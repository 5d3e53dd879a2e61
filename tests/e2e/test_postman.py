"""The Postman collection does what it shows: newman runs it against the running service."""

import os
import shutil

import pytest

from tests.support.commands import CHECKOUT, run_command
from tests.support.running_service import RunningService

_NEWMAN = CHECKOUT / "node_modules" / ".bin" / "newman"
_RUN_MAX_S = 120


@pytest.fixture
def newman() -> str:
    """Path of newman. Installed with npm, which only work on the API contract needs."""
    if not _NEWMAN.exists() or shutil.which("node") is None:
        assert not os.environ.get("CI"), "newman is missing: .ci/run installs it"
        pytest.skip("newman is not installed: `make lint-openapi` installs it (needs npm)")
    return str(_NEWMAN)


def test_every_flow_of_the_collection_is_answered_as_it_says(
    service: RunningService, newman: str
) -> None:
    specification = CHECKOUT / "specification"
    command = [newman, "run", str(specification / "wallet.postman_collection.json")]
    command += ["--environment", str(specification / "wallet.postman_environment.json")]
    command += ["--env-var", f"baseUrl={service.url}"]

    run_command([*command, "--reporters", "cli", "--color", "off"], timeout_s=_RUN_MAX_S)
