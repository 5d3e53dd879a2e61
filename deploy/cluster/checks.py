"""Everything that is checked before a deployment. Nothing here changes anything."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from deploy.cluster import servers
from deploy.cluster.changes import Changes, compare
from deploy.cluster.configuration import Configuration
from deploy.cluster.demand import Demand
from deploy.cluster.room import Room, find_room
from deploy.cluster.state import Cluster, ClusterState
from deploy.local.errors import StackError
from runtime.settings import Settings
from serve_app.applications import API
from serve_app.auth.bind_policy import bind_policy_error

Step = Callable[[str, str], AbstractContextManager[None]]
"""Shows a step: what is done, and what it says when it succeeded."""


class DeploymentRefused(StackError):
    """A check failed: nothing was changed. One problem a line."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that can begin."""

    state: ClusterState
    changes: Changes
    demand: Demand
    """Of the applications that are deployed anew."""
    room: Room
    connections: str
    notes: list[str]


def check(configuration: Configuration, cluster: Cluster, settings: Settings, step: Step) -> Plan:
    """Check everything, and return what would be done.

    ``settings``: those of this command, for the servers' addresses.

    Raises:
        DeploymentRefused: something is wrong. All problems of one step are in the message.
    """
    try:
        with step("Reading the cluster", f"The cluster at {cluster.address} answers"):
            state = cluster.read()
            _check_http(configuration, state)
        changes = compare(configuration, state)
        demand = configuration.only(changes.applications).demand.starting(changes.restarted)
        with step("Reaching Postgres", "Postgres answers, and its schema is migrated"):
            postgres = servers.read_postgres(settings)
            _refuse(servers.migration_problem(postgres))
        with step("Reaching NATS", "NATS with JetStream answers"):
            servers.reach_nats(settings)
        with step("Looking for room", "There is room on the nodes, and connections in Postgres"):
            room = find_room(state, demand)
            _refuse(*room.problems, servers.connection_problem(postgres, demand))
    except DeploymentRefused:
        raise
    except StackError as failure:
        raise DeploymentRefused(str(failure)) from failure
    newer = servers.migration_note(postgres)
    needed, usable = servers.connections_needed(postgres, demand), postgres.connections["usable"]
    return Plan(
        state=state,
        changes=changes,
        demand=demand,
        room=room,
        connections=f"at most {needed} of {usable} connections to Postgres meanwhile",
        notes=[*room.notes, *([newer] if newer else [])],
    )


def _check_http(configuration: Configuration, state: ClusterState) -> None:
    """Serve ignores other addresses while it runs; and nobody may come in without a key."""
    wanted = configuration.http
    if state.http is not None:
        running = dict(zip(("host", "port"), state.http, strict=True))
        for name, now in running.items():
            if name in wanted and wanted[name] != now:
                raise DeploymentRefused(
                    f"Serve listens on {name} {now}, and {configuration.source} says "
                    f"{wanted[name]}. Serve can't change it while it runs: correct it, or run "
                    "`serve shutdown` first, which ends the service."
                )
    api = configuration.applications.get(API)
    if api is not None:
        host = state.http[0] if state.http is not None else wanted.get("host")
        _refuse(bind_policy_error(api.settings, host or api.settings.http_host))


def _refuse(*problems: str | None) -> None:
    found = [problem for problem in problems if problem is not None]
    if found:
        raise DeploymentRefused("\n".join(found))
