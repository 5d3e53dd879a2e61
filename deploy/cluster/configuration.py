"""A Serve configuration, read and validated: what `wallet deploy FILE` deploys.

Everything that Serve, or the application in the cluster, would reject is rejected here, before
anything is sent: Serve deletes what an invalid or an empty configuration does not name.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from pydantic import ValidationError

from deploy.cluster.demand import SHARD_CPUS_MIN, Demand
from deploy.local.errors import StackError
from runtime.settings import Settings
from serve_app.applications import API, PROJECTIONS
from serve_app.arguments import ApplicationArguments

BUILDERS: Final = {
    API: "serve_app.deployment:api",
    PROJECTIONS: "serve_app.deployment:projections",
}
INGRESS: Final = "Ingress"


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """One application as it will be deployed."""

    name: str
    arguments: dict[str, Any]
    """Settings that the configuration names, and ``revision``."""
    options: dict[str, dict[str, Any]]
    """Serve's options by deployment."""
    settings: Settings
    """With the environment of this command for what the arguments don't name."""


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one deployment sets."""

    source: str
    """For people: the file's name."""
    raw: dict[str, Any] | None
    """As it is sent to Serve; None: the settings of a shell, which no file has."""
    applications: dict[str, Application]
    http: dict[str, Any]
    """Serve's options for HTTP that the file names: ``host``, ``port``, …"""

    def only(self, names: Collection[str]) -> "Configuration":
        """Without the other applications."""
        chosen = {name: one for name, one in self.applications.items() if name in names}
        return msgspec.structs.replace(self, applications=chosen)

    @property
    def demand(self) -> Demand:
        """What the applications need of the cluster and of the servers."""
        api, projections = self.applications.get(API), self.applications.get(PROJECTIONS)
        ingress = api.options.get(INGRESS, {}) if api else {}
        return Demand(
            shards=api.settings.shard_count if api else 0,
            shard_cpus=max(api.settings.shard_num_cpus, SHARD_CPUS_MIN) if api else 0.0,
            replicas=_replicas_max(ingress, api.settings) if api else 0,
            replica_cpus=float(
                (ingress.get("ray_actor_options") or {}).get("num_cpus", SHARD_CPUS_MIN)
            ),
            replicas_per_node_max=ingress.get("max_replicas_per_node"),
            read_pool_max=api.settings.read_pool_max if api else 0,
            keys=api is not None and api.settings.auth == "required",
            projections=projections.settings.projection_groups if projections else 0,
        )


def read(path: Path) -> Configuration:
    """The configuration in ``path``.

    Raises:
        StackError: there is no such file, or it is no valid configuration of this service. The
            message names the first thing that is wrong.
    """
    try:
        text = path.read_text()
    except IsADirectoryError:
        raise StackError(f"{path} is a folder, not a file.") from None
    except (OSError, UnicodeDecodeError) as failure:
        reason = getattr(failure, "strerror", None) or "not a text file"
        raise StackError(f"Can't read {path.absolute()} ({reason}).") from failure
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as failure:
        where = getattr(failure, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise StackError(f"{path} is not valid YAML{line}.") from failure
    return parse(raw, str(path))


def from_settings(settings: Settings, names: Sequence[str]) -> Configuration:
    """The applications ``names`` from the settings of this command."""
    return Configuration(
        source="the settings of this shell",
        raw=None,
        applications={
            name: Application(name=name, arguments={}, options={}, settings=settings)
            for name in names
        },
        http={},  # Serve keeps the address that it listens on
    )


def parse(raw: Any, source: str) -> Configuration:
    """A configuration from what the file contains; raises as `read` does."""
    from ray.serve.schema import ServeDeploySchema

    if not isinstance(raw, dict):
        raise StackError(f"{source} is no Serve configuration: it is not a mapping.")
    try:
        ServeDeploySchema.model_validate(raw)
    except ValidationError as wrong:
        raise _invalid(source, wrong) from wrong
    if not raw["applications"]:
        raise StackError(f"{source} has no applications: deploying it would remove all of them.")
    applications = [_application(one, source) for one in raw["applications"]]
    return Configuration(
        source=source,
        raw=raw,
        applications={one.name: one for one in applications},
        http=raw.get("http_options") or {},
    )


def _application(raw: dict[str, Any], source: str) -> Application:
    name, builder = raw.get("name", "default"), raw.get("import_path")
    if BUILDERS.get(name) != builder:
        known = ", ".join(f"{one} ({path})" for one, path in BUILDERS.items())
        raise StackError(
            f"{source}: application {name} ({builder}) is not one of this service: {known}."
        )
    arguments = raw.get("args") or {}
    try:
        settings = ApplicationArguments(**arguments).settings()
    except ValidationError as wrong:
        raise _invalid(f"{source}, args of {name}", wrong) from wrong
    return Application(
        name=name,
        arguments=arguments,
        options={one["name"]: one for one in raw.get("deployments") or ()},
        settings=settings,
    )


def _replicas_max(options: dict[str, Any], settings: Settings) -> int:
    autoscaling = options.get("autoscaling_config")
    if isinstance(autoscaling, dict):
        return int(autoscaling.get("max_replicas", 1))
    replicas = options.get("num_replicas", settings.ingress_replicas)
    # "auto" is Serve's own autoscaling, which ends at a hundred.
    return replicas if isinstance(replicas, int) else 100


def _invalid(where: str, wrong: ValidationError) -> StackError:
    first = wrong.errors(include_input=False, include_url=False)[0]
    name = ".".join(map(str, first["loc"])) or "configuration"
    return StackError(f"{where}: {name}: {first['msg']}.")
