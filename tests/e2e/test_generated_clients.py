"""Clients generated from the running service's description compile, and work against it."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.commands import CHECKOUT
from tests.support.running_service import RunningService

_FLOWS: Final = Path(__file__).parent / "generated_clients"
_NODE_TOOLS: Final = CHECKOUT / "node_modules" / ".bin"
_PYTHON_TOOLS: Final = CHECKOUT / ".venv" / "generators" / "bin"
_GO_VERSION_MIN: Final = (1, 25)
_NAMED_BY_THE_GENERATOR: Final = re.compile(r"_type_\d|_item|_inner|\d$")
"""Names that generators give to schemas without one."""
_OUTPUT: Final = """\
created: USD active 0.00
debited: 10.50 completed, balance 10.50
held: 4.00 pending, replayed true
completed: completed, balance 6.50
listed: credit debit
refused: 409 insufficient_funds
batch: completed insufficient_funds, balance 7.50
"""


def _run(*command: str | Path, at: Path, timeout_s: float = 60, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=at,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _flow(name: str, folder: Path) -> Path:
    return Path(shutil.copy(_FLOWS / name, folder))


def _typescript(url: str, folder: Path) -> str:
    (folder / "node_modules").symlink_to(CHECKOUT / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    _run(_NODE_TOOLS / "openapi-typescript", f"{url}/openapi.json", "-o", "wallet.ts", at=folder)
    options = ("--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck")
    _run(_NODE_TOOLS / "tsc", *options, _flow("flow.ts", folder), at=folder)
    return _run("node", "flow.js", url, at=folder)


def _python(url: str, folder: Path) -> str:
    generate = (_PYTHON_TOOLS / "openapi-python-client", "generate", "--meta", "none")
    path = f"{_PYTHON_TOOLS}:{os.environ['PATH']}"  # It formats with ruff.
    target = ("--url", f"{url}/openapi.json", "--output-path", "wallet_client")
    _run(*generate, *target, at=folder, PATH=path)
    models = [path.stem for path in (folder / "wallet_client" / "models").glob("*.py")]
    assert "transfer_type" in models
    assert [name for name in models if _NAMED_BY_THE_GENERATOR.search(name)] == []
    flow = _flow("flow.py", folder)
    # Not this project's settings; what the generated code itself says is not judged.
    strict = ("--strict", "--follow-imports=silent", "--config-file=", "--cache-dir=cache")
    _run(sys.executable, "-m", "mypy", *strict, flow, at=folder)
    return _run(sys.executable, flow, url, at=folder)


def _go(url: str, folder: Path) -> str:
    for name in ("flow.go", "go.mod", "go.sum"):
        _flow(name, folder)
    description = folder / "openapi.json"
    with urllib.request.urlopen(f"{url}/openapi-3.0.json") as answer:
        description.write_bytes(answer.read())
    (folder / "wallet").mkdir()
    generate = ("go", "tool", "oapi-codegen", "-generate", "types,client", "-package", "wallet")
    offline = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    target = ("-o", "wallet/wallet.go", description)
    _run(*generate, *target, at=folder, timeout_s=240, **offline)
    _run("go", "build", "-o", "flow", ".", at=folder, timeout_s=120, **offline)
    return _run(folder / "flow", url, at=folder)


_CLIENTS: Final[dict[str, Callable[[str, Path], str]]] = {
    "typescript": _typescript,
    "python": _python,
    "go": _go,
}


def _missing(language: str) -> str:
    """Why the generator can't run here; empty: it can."""
    if language == "go":
        return _missing_go()
    tool = {
        "typescript": _NODE_TOOLS / "openapi-typescript",
        "python": _PYTHON_TOOLS / "openapi-python-client",
    }[language]
    if tool.exists():
        return ""
    assert not os.environ.get("CI"), "CI installs the generators"
    return f"{tool.name} is not installed: make generators"


def _missing_go() -> str:
    needed = ".".join(map(str, _GO_VERSION_MIN))
    if shutil.which("go") is None:
        return f"Go {needed} or newer is not installed"
    version = re.search(r"go(\d+)\.(\d+)", _run("go", "version", at=CHECKOUT, GOTOOLCHAIN="local"))
    assert version is not None
    found = (int(version[1]), int(version[2]))
    return "" if found >= _GO_VERSION_MIN else f"Go {needed} or newer is needed, not {version[0]}"


@pytest.mark.parametrize("language", list(_CLIENTS))
def test_a_generated_client_compiles_and_works(
    language: str, service: RunningService, tmp_path: Path
) -> None:
    missing = _missing(language)
    if missing:
        pytest.skip(missing)

    assert _CLIENTS[language](service.url, tmp_path) == _OUTPUT
