"""The sources of earlier releases, from the repository's history."""

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Final

import pytest

RELEASED: Final = "9e1a3ce0b6c142d293f1d041d647dd67765816d4"
"""The commit of 0.1.0, the last release of the changelog: shard protocol 2, migration 0007."""

BEFORE_CONTROL: Final = "083f21f33fb2ada46e53842fa5e7d8bf601f162a"
"""The last commit before wallet control, expiry and parts: shard protocol 4, migration 0011."""

_ROOT: Final = Path(__file__).parents[2]


def released_sources(folder: Path, commit: str = RELEASED) -> Path:
    """Unpack the sources of ``commit`` into ``folder``.

    Skips the test in a download without history and in a shallow clone, and says what to do.

    Raises:
        AssertionError: this is a whole clone, and doesn't have them. An upgrade that was not
            tested is no tested upgrade.
    """
    archive = _git("archive", commit)
    if archive.returncode != 0:
        missing = (
            f"The sources of an earlier release (commit {commit[:7]}) are not in this checkout. "
            "Fetch the whole history (git fetch --unshallow) and run the test again. "
            f"git says: {archive.stderr.decode(errors='replace').strip()}"
        )
        if not _has_whole_history():
            pytest.skip(missing)
        raise AssertionError(missing)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as sources:
        sources.extractall(folder, filter="data")
    return folder


def _has_whole_history() -> bool:
    return _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"false"


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, check=False)
