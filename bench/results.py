"""`latest.json`: the results of a run and its environment."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.machine import DURABLE, Machine
from bench.measurement import Measured
from bench.ratios import TARGETS, Measurements, ratios_of
from bench.scenarios import BY_NAME

FOLDER: Final = Path(__file__).parent / "results"
LATEST: Final = FOLDER / "latest.json"


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """The environment of a run."""

    mode: str
    commit: str
    machine: Machine
    versions: Mapping[str, str]
    postgres: Mapping[str, str]
    """Settings of the server, from SHOW; the service and the baselines share it."""
    service: Mapping[str, int]
    generator: str
    notes: tuple[str, ...] = ()

    @property
    def is_durable(self) -> bool:
        """Whether an acknowledged write survives a power cut. Else nothing is comparable."""
        return all(self.postgres.get(name) == value for name, value in DURABLE.items())


def document_of(circumstances: Circumstances, found: Measurements) -> dict[str, Any]:
    """The content of `latest.json`."""
    ratios = ratios_of(found)
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **msgspec.to_builtins(circumstances),
        "durable": circumstances.is_durable,
        "scenarios": {name: _scenario(name, found) for name in found.closed},
        "baselines": _baselines(found),
        "service_idle_cores": found.idle_cores,
        "neighbour": msgspec.to_builtins(found.neighbour),
        "memory": msgspec.to_builtins(found.memory),
        "ratios": ratios,
        "targets": {key: _target(key, value) for key, value in ratios.items()},
        "skipped": found.skipped,
    }


def _scenario(name: str, found: Measurements) -> dict[str, Any]:
    headline = found.headline.get(name) or next(iter(found.closed[name].values()))
    return {
        "summary": BY_NAME[name].summary,
        **msgspec.to_builtins(headline),
        "runs": {str(n): _without_series(one) for n, one in found.closed[name].items()},
        "open_loop": {str(n): _without_series(one) for n, one in found.open.get(name, {}).items()},
    }


def _without_series(one: Measured) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(one)
    if values["batch_sizes"]:
        del values["batch_sizes"]["series"]
    return values


def _baselines(found: Measurements) -> dict[str, Any]:
    lists = {
        "fastapi": [one for one in found.fastapi if one.concurrency > 1],
        "pgbench": found.pgbench,
        "limit": list(found.limit.values()),
    }
    runs = {**lists, "fastapi": found.fastapi}
    return {
        name: {
            **msgspec.to_builtins(max(some, key=lambda one: one.transfers_per_s)),
            "runs": msgspec.to_builtins(runs[name]),
        }
        for name, some in lists.items()
        if some
    }


def _target(key: str, value: float | None) -> dict[str, Any]:
    target = TARGETS[key]
    verdict = None if value is None else target.verdict(value)
    return {**msgspec.to_builtins(target), "verdict": verdict}


def write(document: Mapping[str, Any], path: Path = LATEST) -> None:
    """Write the document, readable and in a stable order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read(path: Path = LATEST) -> dict[str, Any]:
    """Read what `write` wrote."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
