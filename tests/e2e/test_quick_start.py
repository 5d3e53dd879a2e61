"""The sessions in README.md and docs/using/quick-start.md, run as they stand but for the port."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import CHECKOUT
from tests.support.running_service import RunningService

_PAGE = CHECKOUT / "docs" / "using" / "quick-start.md"
_HERE = "http://localhost:8089"
_COMMANDS = {"sh": "sh", "python": sys.executable, "javascript": "node"}
_NAMES = {"sh": "session.sh", "python": "session.py", "javascript": "session.mjs"}


@pytest.mark.parametrize("language", list(_COMMANDS))
def test_a_session_of_the_quick_start_works(
    language: str, service: RunningService, tmp_path: Path
) -> None:
    command = shutil.which(_COMMANDS[language])
    if command is None:
        assert not os.environ.get("CI"), "CI runs every session"
        pytest.skip(f"{_COMMANDS[language]} is not installed")
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    (code,) = fence.findall(_PAGE.read_text())
    assert _HERE in code
    file = tmp_path / _NAMES[language]
    file.write_text(code.replace(_HERE, service.url))

    done = subprocess.run(
        [command, str(file)], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *_, refusal, balance = done.stdout.splitlines()
    assert "100.00 USD was asked for, 6.50 is available." in refusal
    assert '"balance":"6.50"' in balance if language == "sh" else balance == "6.50"


def test_the_walkthrough_of_the_readme_works(service: RunningService, tmp_path: Path) -> None:
    fence = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    (code,) = fence.findall((CHECKOUT / "README.md").read_text())
    assert _HERE in code
    session = code.replace(_HERE, service.url)

    # Twice: whoever pastes it again gets another wallet.
    answers = [
        json.loads(subprocess.check_output(["sh", "-euc", session], cwd=tmp_path, timeout=60))
        for _ in range(2)
    ]

    for answer in answers:
        assert (answer["amount"], answer["wallet"]["balance"]) == ("10.50", "10.50")
        shown = json.dumps(answer["wallet"], separators=(",", ":"))
        assert shown in (CHECKOUT / "README.md").read_text()
    assert answers[0]["wallet_id"] != answers[1]["wallet_id"]
