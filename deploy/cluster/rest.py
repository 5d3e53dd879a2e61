"""A cluster through the HTTP API of its dashboard, `http://HEAD:8265`: from any machine.

No driver joins the cluster, so this needs neither a Ray node on this machine nor Ray's environment,
only the token (RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH).
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import httpx

from deploy.cluster.state import (
    ActorState,
    ClusterState,
    NodeState,
    applications_from,
    http_from,
    unreachable,
)
from deploy.local.errors import StackError

_TIMEOUT_S: Final = 15.0
_ACTORS_MAX: Final = 10_000
"""Ray's own limit for one answer."""


class RestCluster:
    """Implements `Cluster`."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        token = _token()
        self._client = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=_TIMEOUT_S,
            transport=transport,
            trust_env=False,
        )

    @property
    def address(self) -> str:
        return self._url

    def read(self) -> ClusterState:
        details = self._get("/api/serve/applications/")
        actors = list(map(_actor, self._rows("/api/v0/actors", state="!=DEAD")))
        memory = self._free_memory()
        nodes = [
            _node(row, actors, memory)
            for row in self._rows("/api/v0/nodes")
            if row["state"] == "ALIVE"
        ]
        return ClusterState(
            nodes=nodes,
            actors=actors,
            applications=applications_from(details),
            http=http_from(details) if details.get("applications") else None,
        )

    def deploy(self, config: dict[str, Any]) -> None:
        try:
            answer = self._client.put("/api/serve/applications/", json=config, timeout=60)
        except httpx.HTTPError as failure:
            raise unreachable(self._url, failure) from failure
        if answer.status_code != httpx.codes.OK:
            reason = answer.text.strip().rpartition("\n")[2]
            raise StackError(f"Serve refused the configuration: {reason}")

    def _rows(self, path: str, **unequal: str) -> list[dict[str, Any]]:
        query = {"detail": "1", "limit": str(_ACTORS_MAX)}
        for key, condition in unequal.items():
            query |= {
                "filter_keys": key,
                "filter_predicates": "!=",
                "filter_values": condition.removeprefix("!="),
            }
        found: list[dict[str, Any]] = self._get(path, **query)["data"]["result"]["result"]
        return found

    def _free_memory(self) -> dict[str, int]:
        """Bytes by node. The dashboard gets them from its agents; one that is new has none."""
        found = self._get("/nodes", view="summary")["data"]["summary"]
        return {
            str(one["raylet"]["nodeId"]): int(one["mem"][1])
            for one in found
            if one.get("mem") and one.get("raylet", {}).get("nodeId")
        }

    def _get(self, path: str, **query: str) -> Any:
        try:
            answer = self._client.get(path, params=query)
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise StackError(
                    f"The cluster at {self._url} does not accept the token. Set RAY_AUTH_TOKEN or "
                    "RAY_AUTH_TOKEN_PATH to the one that its nodes have."
                )
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, ValueError) as failure:
            raise unreachable(self._url, failure) from failure


def _token() -> str:
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    if token or not path:
        return token
    try:
        return Path(path).read_text().strip()
    except OSError as failure:
        raise StackError(f"Can't read the token in RAY_AUTH_TOKEN_PATH ({failure}).") from failure


def _actor(row: dict[str, Any]) -> ActorState:
    return ActorState(
        name=row.get("name") or "",
        class_name=row.get("class_name") or "",
        node=row.get("node_id") or None,
        cpus=float((row.get("required_resources") or {}).get("CPU", 0.0)),
        is_alive=row["state"] == "ALIVE",
    )


def _node(row: dict[str, Any], actors: Iterable[ActorState], memory: dict[str, int]) -> NodeState:
    reserved: defaultdict[str | None, float] = defaultdict(float)
    for actor in actors:
        reserved[actor.node] += actor.cpus
    cpus = float((row.get("resources_total") or {}).get("CPU", 0.0))
    return NodeState(
        id=row["node_id"],
        name=row["node_ip"],
        is_head=bool(row.get("is_head_node")),
        cpus=cpus,
        free_cpus=round(cpus - reserved[row["node_id"]], 4),
        free_memory_bytes=memory.get(row["node_id"]),
    )
