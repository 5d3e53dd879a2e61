"""Without the history of the last release its upgrade is not tested, and the test says why."""

from pathlib import Path

import pytest

from tests.support import released_sources as module
from tests.support.released_sources import released_sources


def test_a_whole_clone_without_the_release_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_has_whole_history", lambda: True)
    with pytest.raises(AssertionError, match=r"not in this checkout.*git fetch --unshallow"):
        released_sources(tmp_path, "f" * 40)
    assert list(tmp_path.iterdir()) == []


def test_a_shallow_clone_skips_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_has_whole_history", lambda: False)
    with pytest.raises(pytest.skip.Exception, match=r"not in this checkout.*--unshallow"):
        released_sources(tmp_path, "f" * 40)
