"""A clone without the history of the last release fails the upgrade's test, and says what to do."""

from pathlib import Path

import pytest

from tests.support.released_sources import released_sources


def test_a_clone_without_the_release_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"not in this clone.*git fetch --unshallow"):
        released_sources(tmp_path, "f" * 40)
    assert list(tmp_path.iterdir()) == []
