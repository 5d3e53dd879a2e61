"""A request script: the requests of a load, prepared in advance, for any generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ResponseMode(StrEnum):
    """What a generator does with responses, besides counting them by status."""

    PLAIN = "plain"
    """Nothing: each request carries at most one transfer."""
    ITEMS = "items"
    """Count the items in each response by outcome."""
    SETTLE = "settle"
    """Complete each created transfer, in a later request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTemplate:
    """One request. ``has_key``: it gets an Idempotency-Key of its own each time it is sent."""

    method: str
    path: str
    body: str = ""
    has_key: bool = False

    def __post_init__(self) -> None:
        for text in (self.method, self.path, self.body):
            if "\t" in text or "\n" in text:
                raise ValueError("a template is one line of tab-separated fields")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestScript:
    """Templates that are sent in order, repeatedly. The order is part of the scenario."""

    templates: Sequence[RequestTemplate]
    mode: ResponseMode = ResponseMode.PLAIN
    items_per_request: int = 1
    """Transfers that one request asks for (0 for reads)."""

    def write(self, path: Path) -> None:
        """One template per line: method, path, 1 if it has a key, body."""
        lines = (
            f"{template.method}\t{template.path}\t{int(template.has_key)}\t{template.body}\n"
            for template in self.templates
        )
        path.write_text("".join(lines), encoding="utf-8")


def read_templates(path: Path) -> list[RequestTemplate]:
    """The templates that `RequestScript.write` wrote."""
    templates = []
    for line in path.read_text(encoding="utf-8").splitlines():
        method, target, key, body = line.split("\t")
        templates.append(RequestTemplate(method=method, path=target, body=body, has_key=key == "1"))
    return templates
