"""The table of log events, generated from the logger calls in the code."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = (
    "wallet", "runtime", "telemetry", "actors", "projections", "serve_app", "deploy",
)  # fmt: skip
"""Packages with loggers. A package that doesn't exist is skipped."""

_LEVELS: Final = {"debug", "info", "warning", "error", "critical"}
_NOT_FIELDS: Final = {"exc_info"}


class LogEvent(NamedTuple):
    """One logger call: the event's name, level, fields and package."""

    name: str
    level: str
    fields: tuple[str, ...]
    package: str


def log_event_table() -> str:
    """Every log event as a Markdown table, in alphabetical order."""
    lines = ["| event | level | fields | logged by |", "|---|---|---|---|"]
    for event in sorted(set(_events())):
        fields = ", ".join(f"`{field}`" for field in event.fields)
        lines.append(f"| `{event.name}` | {event.level} | {fields} | `{event.package}` |")
    return "\n".join(lines)


def _events() -> Iterator[LogEvent]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (event := _event_of(node, package)):
                    yield event


def _event_of(call: ast.Call, package: str) -> LogEvent | None:
    match call:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="_log"), attr=level),
            args=[ast.Constant(value=str(name)), *_],
        ) if level in _LEVELS:
            names = (keyword.arg for keyword in call.keywords)
            fields = tuple(name for name in names if name and name not in _NOT_FIELDS)
            return LogEvent(name.removesuffix(": %s"), level, fields, package)
        case _:
            return None
