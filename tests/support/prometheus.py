"""The queries of the dashboards and alerts, and a real Prometheus to run them."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from deploy.local.ports import free_port

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
RULES: Final = DEPLOY / "prometheus/rules/wallet.yml"
RULE_TESTS: Final = DEPLOY / "prometheus/tests/wallet.yml"
DASHBOARDS: Final = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))

PROMETHEUS: Final = shutil.which("prometheus")
PROMTOOL: Final = shutil.which("promtool")

_SCRAPE_S: Final = 2
_STOP_S: Final = 20
_NAME: Final = re.compile(r"\bray_\w+")
_THRESHOLD: Final = re.compile(r"\s*(?:>=|<=|==|>|<)\s*[\d.]+\s*$")
_ABSENT: Final = re.compile(r"^absent\((.*)\)$")


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and its location."""

    place: str
    expression: str

    @property
    def metrics(self) -> set[str]:
        return set(_NAME.findall(self.expression))


def panels(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["panels"]
    return found


def dashboard_queries() -> list[Query]:
    """Every query of every dashboard; one minute replaces Grafana's rate interval."""
    return [
        Query(
            f"{path.name}: {panel['title']}",
            target["expr"].replace("$__rate_interval", "1m").replace("$__interval", "1m"),
        )
        for path in DASHBOARDS
        for panel in panels(path)
        for target in panel.get("targets", [])
    ]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert_queries() -> list[Query]:
    """The expression that each alert compares with its threshold: it always has a value."""
    return [
        Query(rule["alert"], _ABSENT.sub(r"\1", _THRESHOLD.sub("", rule["expr"])))
        for rule in alerts()
    ]


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=10.0)

    def is_ready(self) -> bool:
        try:
            return self._http.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def ask(self, expression: str) -> list[float]:
        """The values of an instant query."""
        answer = self._http.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return [float(found["value"][1]) for found in answer["data"]["result"]]

    def rules(self) -> list[dict[str, Any]]:
        groups = self._http.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def close(self) -> None:
        self._http.close()


@contextmanager
def running_prometheus(target: str) -> Iterator[Prometheus]:
    """A Prometheus with our rules that scrapes ``target`` (HOST:PORT)."""
    assert PROMETHEUS
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="wallet-prometheus-") as folder:
        config = {
            "global": {
                "scrape_interval": f"{_SCRAPE_S}s",
                "evaluation_interval": f"{_SCRAPE_S}s",
            },
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": [target]}]}],
        }
        file = Path(folder) / "prometheus.yml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ]
        )
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        try:
            yield prometheus
        finally:
            prometheus.close()
            process.terminate()
            process.wait(timeout=_STOP_S)
