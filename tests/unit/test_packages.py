"""Our packages have common names: each import must come from this repository."""

import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DECLARED: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
PACKAGES = [*DECLARED, "tests"]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_loaded_from_this_repository(name: str) -> None:
    module = import_module(name)
    assert module.__file__ is not None, f"{name} has no __init__.py: another one may shadow it"
    assert Path(module.__file__) == ROOT / name / "__init__.py"


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_distribution_brings_a_package_of_this_name(name: str) -> None:
    assert set(packages_distributions().get(name, [])) <= {"wallet-service"}


def test_every_folder_with_code_is_a_package() -> None:
    folders = {
        path.parent
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
