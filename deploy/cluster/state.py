"""What a Ray cluster looks like: nodes, actors, Serve applications. Read by `rest` or `driver`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from deploy.local.errors import StackError

Kind = Literal["shard", "ingress", "projection"]

_SHARD: Final = "::shard-"
_PROJECTION: Final = "::projection-"
_REPLICA_CLASS: Final = "ServeReplica:api:Ingress"

DEPLOYING: Final = "DEPLOYING"
"""Serve's status of an application whose new version does not run completely."""
FAILED: Final = "DEPLOY_FAILED"


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """One node that is alive."""

    id: str
    name: str
    """Its address in the cluster."""
    is_head: bool
    cpus: float
    free_cpus: float
    """CPUs that no actor reserves."""
    free_memory_bytes: int | None = None
    """Physical memory that is available; None: unknown."""


class ActorState(msgspec.Struct, frozen=True, kw_only=True):
    """One actor that is alive or starting."""

    name: str
    class_name: str
    node: str | None
    """Id of its node; None: it has none yet."""
    cpus: float
    is_alive: bool

    @property
    def kind(self) -> Kind | None:
        """Which part of the service it is; None: another actor."""
        if _SHARD in self.name:
            return "shard"
        if _PROJECTION in self.name:
            return "projection"
        return "ingress" if self.class_name == _REPLICA_CLASS else None

    @property
    def version(self) -> str:
        """What all shards, or all projections, of one deployed version have in common."""
        return self.name.rpartition("::")[0]

    @property
    def label(self) -> str:
        """For people: ``shard-3``, ``projection-0``, ``ingress replica``."""
        return "ingress replica" if self.kind == "ingress" else self.name.rpartition("::")[2]


class ApplicationState(msgspec.Struct, frozen=True, kw_only=True):
    """One Serve application."""

    name: str
    status: str
    """Serve's: ``RUNNING``, ``DEPLOYING``, ``DEPLOY_FAILED``, …"""
    message: str
    deployed_at_s: float
    config: dict[str, Any] | None
    """As it was deployed from a file; None: not from a file."""
    settings: dict[str, Any]
    """The settings that its processes have; empty: unknown. Secrets included."""
    replicas: Mapping[str, int]
    """Target number of replicas by deployment."""


class ClusterState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment."""

    nodes: Sequence[NodeState]
    actors: Sequence[ActorState]
    applications: Mapping[str, ApplicationState]
    http: tuple[str, int] | None
    """Address and port that Serve listens on; None: Serve doesn't run."""

    @property
    def being_deployed(self) -> frozenset[str]:
        """Names of the applications that Serve has not finished to deploy."""
        return frozenset(
            name for name, found in self.applications.items() if found.status == DEPLOYING
        )

    def of_kind(self, kind: Kind) -> list[ActorState]:
        return [actor for actor in self.actors if actor.kind == kind]


class Cluster(Protocol):
    """A cluster that can be read and deployed on.

    Every method raises StackError if the cluster does not answer, or refuses.
    """

    @property
    def address(self) -> str:
        """For people."""

    def read(self) -> ClusterState: ...

    def deploy(self, config: dict[str, Any]) -> None:
        """Begin to deploy a Serve configuration, which replaces the one deployed before."""


def applications_from(details: dict[str, Any]) -> dict[str, ApplicationState]:
    """The applications in Serve's `ServeInstanceDetails`."""
    return {
        name: ApplicationState(
            name=name,
            # An enumeration from the controller, text from the dashboard.
            status=str(getattr(found["status"], "value", found["status"])),
            message=found.get("message") or "",
            deployed_at_s=found.get("last_deployed_time_s") or 0.0,
            config=found.get("deployed_app_config"),
            settings=_settings_of(found),
            replicas={
                deployment: one.get("target_num_replicas", 0)
                for deployment, one in (found.get("deployments") or {}).items()
            },
        )
        for name, found in details.get("applications", {}).items()
    }


def http_from(details: dict[str, Any]) -> tuple[str, int] | None:
    """Address and port in Serve's `ServeInstanceDetails`."""
    options = details.get("http_options") or {}
    if not options.get("host") or not options.get("port"):
        return None
    return options["host"], int(options["port"])


def _settings_of(application: dict[str, Any]) -> dict[str, Any]:
    for deployment in (application.get("deployments") or {}).values():
        for actor in deployment.get("deployment_config", {}).get("deployment_actors") or ():
            settings = (actor.get("init_kwargs") or {}).get("settings")
            if isinstance(settings, dict):
                return settings
    return {}


def unreachable(address: str, reason: object) -> StackError:
    text = str(reason).strip().partition("\n")[0] or type(reason).__name__
    return StackError(f"Can't reach the cluster at {address} ({text}).")
