"""Relative links in the documents point to an existing file and an existing heading."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("specification/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
        *ROOT.glob("bench/*.md"),
    ]
)
FRONT_PAGE_LINES_MAX = 150
PAGE_LINES_MAX = 150
READERS = ("using", "operating", "developing")

_LINK = re.compile(r"\]\((?!https?:)(?P<file>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def prose_of(path: Path) -> str:
    """The document without its code blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


@cache
def anchors_in(path: Path) -> frozenset[str]:
    """Anchors of the headings, as forges make them; a repeated one gets a number."""
    found: list[str] = []
    for heading in _HEADING.findall(prose_of(path)):
        anchor = _NOT_IN_ANCHORS.sub("", heading.strip().lower()).replace(" ", "-")
        repeated = sum(other == anchor for other in found)
        found.append(f"{anchor}-{repeated}" if repeated else anchor)
    return frozenset(found)


def broken_links(path: Path) -> Iterator[str]:
    for link in _LINK.finditer(prose_of(path)):
        target = (path.parent / link["file"]).resolve() if link["file"] else path
        if not target.exists() or (link["anchor"] and link["anchor"] not in anchors_in(target)):
            yield link.group()


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_relative_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_a_link_to_a_missing_heading_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`, three\n[a](#one-two-three) [b](#four) [c](none.md)\n")
    assert list(broken_links(page)) == ["](#four)", "](none.md)"]


def test_the_front_page_is_a_page() -> None:
    assert (
        len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= FRONT_PAGE_LINES_MAX
    )


@pytest.mark.parametrize("reader", READERS)
def test_every_page_of_a_reader_is_short_and_listed(reader: str) -> None:
    folder = ROOT / "docs" / reader
    index = (folder / "README.md").read_text(encoding="utf-8")
    for page in folder.glob("*.md"):
        assert len(page.read_text(encoding="utf-8").splitlines()) <= PAGE_LINES_MAX, page.name
        assert page.name == "README.md" or f"({page.name})" in index, page.name
    assert f"docs/{reader}/README.md" in (ROOT / "README.md").read_text(encoding="utf-8")
