"""The documents match the code, wherever that can be checked."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from runtime.settings import Settings
from serve_app.http.problems import PROBLEM_TYPES
from serve_app.openapi.document import ROUTES
from specification.generators.all_tables import ALL_TABLES
from specification.generators.doc_tables import replace_table, settings_table, unit_of

ROOT = Path(__file__).resolve().parents[2]
CODE = (
    "wallet",
    "actors",
    "projections",
    "serve_app",
    "telemetry",
    "migrations",
    "verification",
)
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("bench/*.md"),
        *ROOT.glob("deploy/*.md"),
        *ROOT.glob("specification/*.md"),
        *ROOT.glob("specification/decisions/*.md"),
    ]
)
DECISIONS = sorted(ROOT.glob("specification/decisions/*.md"))

_INVARIANT = re.compile(r"INV-\d+")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_CODE_PLACE = re.compile(
    r"`((?:wallet|actors|projections|serve_app|migrations|verification)/[\w/.]+)`"
)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def functions_in(path: Path) -> frozenset[str]:
    """Names of the functions of a module, including methods."""
    tree = ast.parse(text_of(path))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@cache
def methods_of_state_machines(path: Path) -> frozenset[str]:
    """Hypothesis names its state machines by classes: `TestX = Machine.TestCase`."""
    tree = ast.parse(text_of(path))
    return frozenset(
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    )


# -- generated tables --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_TABLES)
def test_a_generated_table_is_what_the_code_generates(name: str) -> None:
    file, generate = ALL_TABLES[name]
    document = text_of(ROOT / file)
    assert document == replace_table(document, name, generate()), "run `make tables`"


def test_every_generated_table_is_known() -> None:
    marker = re.compile(r"^<!-- generated:([\w-]+) -->$", re.MULTILINE)
    documents = [*DOCUMENTS, *ROOT.glob("docs/**/*.md")]
    found = {(name, named(path)) for path in documents for name in marker.findall(text_of(path))}
    assert found == {(name, file) for name, (file, _) in ALL_TABLES.items()}


def test_every_number_among_the_settings_has_a_unit() -> None:
    numbers = {
        name
        for name, field in Settings.model_fields.items()
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert {name for name in numbers if unit_of(name) is None} == set()


def test_every_setting_has_a_reason_and_a_row() -> None:
    assert all(field.description for field in Settings.model_fields.values())
    assert len(settings_table().splitlines()) == 2 + len(Settings.model_fields)


def test_a_table_needs_exactly_one_place() -> None:
    place = "<!-- generated:t -->\n\n<!-- /generated:t -->"
    assert replace_table(f"a\n{place}\nb", "t", "T") == (
        "a\n<!-- generated:t -->\nT\n<!-- /generated:t -->\nb"
    )
    for document in ("", place + place):
        with pytest.raises(ValueError, match="exactly one pair"):
            replace_table(document, "t", "T")


# -- invariants ----------------------------------------------------------------------------------


def test_the_code_and_the_document_have_the_same_invariants() -> None:
    in_code = {
        found
        for package in CODE
        for path in (ROOT / package).rglob("*.py")
        for found in _INVARIANT.findall(text_of(path))
    }
    document = text_of(ROOT / "specification/invariants.md")
    headings = re.findall(r"^## (INV-\d+)", document, flags=re.MULTILINE)
    assert headings == [f"INV-{number}" for number in range(1, len(headings) + 1)]
    assert set(headings) == in_code


def test_every_invariant_names_where_it_is_kept_and_what_guards_it() -> None:
    document = text_of(ROOT / "specification/invariants.md")
    for section in re.split(r"^## (?=INV-)", document, flags=re.MULTILINE)[1:]:
        name = section.partition(" ")[0].strip()
        assert _TEST.search(section), f"{name} names no test"
        assert _CODE_PLACE.search(section), f"{name} names no code"


def test_no_other_document_names_an_invariant_that_does_not_exist() -> None:
    known = set(_INVARIANT.findall(text_of(ROOT / "specification/invariants.md")))
    for path in DOCUMENTS:
        assert set(_INVARIANT.findall(text_of(path))) <= known, named(path)


# -- what documents point to -------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_test_that_a_document_names_exists(path: Path) -> None:
    for file, name in _TEST.findall(text_of(path)):
        assert (ROOT / file).exists(), file
        known = functions_in(ROOT / file) | methods_of_state_machines(ROOT / file)
        assert name in known, f"{file}::{name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_named_file_exists(path: Path) -> None:
    for place in _CODE_PLACE.findall(text_of(path)):
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_documents_name_no_machine(path: Path) -> None:
    assert re.findall(r"/(?:root|home|work|Users)/", text_of(path)) == []


# -- the API -------------------------------------------------------------------------------------


def test_the_readme_lists_every_route() -> None:
    listed = set(
        re.findall(r"^\| `(GET|PATCH|POST) (/\S*)` \|", text_of(ROOT / "README.md"), re.MULTILINE)
    )
    assert listed == {(route.method, route.path) for route in ROUTES}


def test_every_refusal_of_the_documents_is_in_the_catalogue() -> None:
    named_codes = re.findall(
        r"`((?:wallet|transfer|idempotency|validation|reference|insufficient|balance|batch|version)"
        r"_(?:not_\w+|frozen|closed|already_\w+|key_reused|error|id_taken|funds|out_of_range|refused))`",
        "".join(text_of(path) for path in DOCUMENTS),
    )
    assert named_codes
    assert set(named_codes) <= set(PROBLEM_TYPES)


# -- decisions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DECISIONS, ids=named)
def test_a_decision_has_its_parts(path: Path) -> None:
    parts = re.findall(r"^(# .+|Status: .+|## .+)$", text_of(path), flags=re.MULTILINE)
    number = path.name.partition("-")[0]
    assert parts[0].startswith(f"# {number} ")
    assert parts[1].startswith("Status: ")
    assert parts[2:] == ["## Context", "## Decision", "## Consequences"]


def test_decisions_have_numbers_of_their_own_and_are_listed() -> None:
    numbers = [path.name.partition("-")[0] for path in DECISIONS]
    assert len(set(numbers)) == len(numbers)
    index = text_of(ROOT / "specification/README.md")
    assert re.findall(r"\(decisions/([^)]+)\)", index) == [path.name for path in DECISIONS]


def test_every_direct_dependency_has_its_reason() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    extras = project["optional-dependencies"].values()
    direct = [*project["dependencies"], *(one for extra in extras for one in extra)]
    names = {re.split(r"[\[<>=~!]", requirement)[0] for requirement in direct}
    (decision,) = [path for path in DECISIONS if "dependencies" in path.name]
    explained = set(re.findall(r"^\| `([\w-]+)` \|", text_of(decision), flags=re.MULTILINE))
    assert explained == names
