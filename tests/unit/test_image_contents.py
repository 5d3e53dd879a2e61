"""The image has every module that its code imports: .dockerignore names what goes into it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[2]
_OURS: Final = {
    one.name for one in _ROOT.iterdir() if one.is_dir() and any(one.glob("**/*.py"))
} - {
    "tests",
    "specification",  # `wallet specification` writes the documents of a checkout.
}


def _included() -> list[Path]:
    lines = (_ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines, "everything else is left out"
    return [_ROOT / line.removeprefix("!") for line in lines if line.startswith("!")]


def _modules() -> Iterator[Path]:
    for place in _included():
        yield from place.glob("**/*.py") if place.is_dir() else [place]


def _imported(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _file_of(name: str) -> Path | None:
    """The file of the longest part of ``name`` that is a module of this repository."""
    parts = name.split(".")
    if parts[0] not in _OURS:
        return None
    for length in range(len(parts), 0, -1):
        place = _ROOT.joinpath(*parts[:length])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None


def test_every_import_of_the_images_code_is_in_the_image() -> None:
    included = set(_included())
    missing = {
        f"{module.relative_to(_ROOT)}: {name}"
        for module in _modules()
        if module.suffix == ".py"
        for name in _imported(module)
        if (file := _file_of(name)) is not None and included.isdisjoint({file, *file.parents})
    }
    assert missing == set()


@pytest.mark.parametrize("place", _included(), ids=lambda one: str(one.relative_to(_ROOT)))
def test_what_goes_into_the_image_exists(place: Path) -> None:
    assert place.exists() or "*" in place.name


_STARTED: Final = ("Dockerfile", "docker-compose.yml", "deploy/container", "deploy/kuberay")


def test_every_module_that_a_container_starts_is_in_the_image() -> None:
    files = [
        file
        for name in _STARTED
        for file in ([_ROOT / name] if (_ROOT / name).is_file() else (_ROOT / name).iterdir())
    ]
    started = {name for file in files for name in re.findall(r"-m ([a-z_.]+)", file.read_text())}
    found = {name: file for name in started if (file := _file_of(name)) is not None}
    included = set(_included())
    assert found, "haproxy_wrapper at least"
    assert not [n for n, file in found.items() if included.isdisjoint({file, *file.parents})]
