"""Names in the documents exist in the code: files, tests, settings, log events, titles."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.settings import Settings
from serve_app.http.problems import PROBLEM_TYPES
from specification.generators.log_event_table import log_event_table
from tests.unit.test_documents import functions_in, named, text_of

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
REFERENCES = [
    *GUIDES,
    ROOT / "SECURITY.md",
    ROOT / "deploy/README.md",
    ROOT / "bench/README.md",
    *sorted(ROOT.glob("specification/**/*.md")),
]
NO_SETTINGS = {
    "WALLET_EVENTS",  # the stream
    "WALLET_HOME",  # the local stack's folder
    "WALLET_DRAIN_S",  # of deploy.node.drain
    "WALLET_DRILLS_ADDRESS",  # of the tests
    "WALLET_DRILLS_RECORD",
    "WALLET_ID",  # a placeholder
    "WALLET_LEAVE_TIMEOUT_S",  # of deploy/container/ray-node
    "WALLET_NODE_ADDRESS",  # of the units in deploy/systemd
}
"""Words in the form of a setting's environment variable."""

_PATH = re.compile(
    r"`((?:wallet|runtime|actors|projections|serve_app|migrations|verification|deploy"
    r"|specification|tests|bench|docs)/[\w./-]*)`"
)
_NAMED_IN = re.compile(r"((?:`[\w.]+`(?:,? (?:and |or )?)?)+) in\s+`([\w/.]+\.py)`")
"""Names that a page says are in a file."""
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_VARIABLE = re.compile(r"\bWALLET_[A-Z_]+[A-Z]\b")
_LAYOUT_ENTRY = re.compile(r"^(?P<nested>  )?(?P<folder>\w+)/ ", re.MULTILINE)


@pytest.mark.parametrize("path", GUIDES, ids=named)
def test_every_file_that_a_guide_names_exists(path: Path) -> None:
    assert [file for file in _PATH.findall(text_of(path)) if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("path", GUIDES, ids=named)
def test_every_test_that_a_guide_names_exists(path: Path) -> None:
    for file, name in _TEST.findall(text_of(path)):
        assert name in functions_in(ROOT / file), f"{file}::{name}"


@pytest.mark.parametrize("path", [*GUIDES, ROOT / "specification/invariants.md"], ids=named)
def test_every_name_that_a_page_places_in_a_file_is_there(path: Path) -> None:
    for names, file in _NAMED_IN.findall(text_of(path)):
        for name in re.findall(r"`([\w.]+)`", names):
            assert name.rpartition(".")[2] in text_of(ROOT / file), f"{name} in {file}"


@pytest.mark.parametrize("path", REFERENCES, ids=named)
def test_every_setting_that_a_document_names_exists(path: Path) -> None:
    known = {f"WALLET_{name.upper()}" for name in Settings.model_fields}
    assert set(_VARIABLE.findall(text_of(path))) - known <= NO_SETTINGS


def test_the_layout_of_the_architecture_is_that_of_the_repository() -> None:
    page = text_of(ROOT / "docs/developing/architecture.md")
    layout = page.partition("## Layout")[2].partition("## ")[0]
    parent, shown = "", set()
    for entry in _LAYOUT_ENTRY.finditer(layout):
        parent = parent if entry["nested"] else entry["folder"]
        folder = f"{parent}/{entry['folder']}" if entry["nested"] else parent
        assert (ROOT / folder).is_dir(), folder
        shown.add(folder)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= shown


# -- the changelog -----------------------------------------------------------------------------


def renamed(heading: str) -> Iterator[list[str]]:
    """Rows of the unreleased table whose head begins with ``heading``, without backticks."""
    unreleased = text_of(ROOT / "CHANGELOG.md").split("\n## [")[1]
    table = unreleased.partition(f"\n| {heading}")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip().strip("`") for cell in line.strip("|").split("|")]


def test_the_changelog_has_the_settings_new_names() -> None:
    known = {f"WALLET_{name.upper()}" for name in Settings.model_fields}
    rows = list(renamed("old name"))
    assert rows
    for old, new in rows:
        assert new in known, new
        assert old not in known, old


def test_the_changelog_has_the_log_events_new_names() -> None:
    known = set(re.findall(r"^\| `([^`]+)` \|", log_event_table(), re.MULTILINE))
    rows = list(renamed("old event"))
    assert rows
    for old, new in rows:
        assert new in known, new
        assert old not in known, old


def test_the_changelog_has_the_problems_new_titles() -> None:
    rows = list(renamed("code"))
    assert rows
    for code, _old, new in rows:
        assert PROBLEM_TYPES[code].title == new, code
