"""Follows a deployment until every application runs, one has failed, or the time is over."""

from collections.abc import Callable, Collection, Iterator
from typing import Final

from deploy.cluster.demand import Demand
from deploy.cluster.room import shortage
from deploy.cluster.state import FAILED, ActorState, Cluster, ClusterState, Kind
from deploy.local.errors import StackError
from serve_app.applications import API, PROJECTIONS

POLL_S: Final = 1.0
WAITING_S: Final = 15.0
"""A process without a node for this long is reported, with what the nodes lack."""

_DONE_READS: Final = 3
"""Serve says RUNNING for a moment after it took a deployment, too: so often in a row it must."""

_READ_FAILURES_S: Final = 60.0
"""How long a cluster may not answer. Its head restarts in less."""

_PARTS: Final[dict[Kind, str]] = {
    "shard": "shards",
    "ingress": "ingress replicas",
    "projection": "projections",
}
_ACTORS: Final[dict[str, Kind]] = {API: "shard", PROJECTIONS: "projection"}
"""What Serve starts anew with a new version of an application."""


class DeploymentFailed(StackError):
    """Serve gave up. The message has the reason."""


class DeploymentTimedOut(StackError):
    """It was not finished in time. It goes on, and the version before serves until then."""


class Rollout:
    """One deployment. ``before``: the cluster as it was when it began; None: it had begun already.

    ``clock``: seconds, monotonic. ``report`` gets a line for people whenever there is news.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        before: ClusterState | None,
        applications: Collection[str],
        demand: Demand,
        report: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._cluster = cluster
        self._new_word = "" if before is None else "new "
        self._applications_before = {} if before is None else before.applications
        self._known = frozenset(() if before is None else (one.name for one in before.actors))
        self._applications = sorted(applications)
        self._demand = demand
        self._report = report
        self._clock = clock
        self._sleep = sleep
        self._waiting_since: dict[str, float] = {}
        self._reported = ""

    def follow(self, *, timeout_s: float) -> ClusterState:
        """Wait for the end; returns the cluster as it is then.

        Raises:
            DeploymentFailed: an application could not be started.
            DeploymentTimedOut: it was not finished after ``timeout_s``.
            StackError: the cluster does not answer any more.
        """
        deadline_s = self._clock() + timeout_s
        answered_s = self._clock()
        done = 0
        while True:
            try:
                state = self._cluster.read()
            except StackError:
                if self._clock() - answered_s > _READ_FAILURES_S:
                    raise
                self._news("The cluster does not answer; trying again.")
            else:
                answered_s = self._clock()
                self._check_failures(state)
                done = done + 1 if self._is_done(state) else 0
                if done >= _DONE_READS:
                    return state
                waiting = next(self._without_room(state), "")
                if not done:
                    self._news(self._progress(state) + (f"\n{waiting}" if waiting else ""))
                if self._clock() >= deadline_s:
                    raise self._timed_out(state, waiting, timeout_s)
            self._sleep(POLL_S)

    def _news(self, text: str) -> None:
        if text != self._reported:
            self._reported = text
            self._report(text)

    def _is_new(self, state: ClusterState, name: str) -> bool:
        """Whether what Serve says of the application is about this deployment.

        It keeps the time of the first deployment if that was from a shell's settings, which start
        all actors anew.
        """
        found, before = state.applications.get(name), self._applications_before.get(name)
        if found is None or before is None:
            return found is not None
        return (
            found.deployed_at_s != before.deployed_at_s
            or found.status == FAILED != before.status
            or bool(self._new(state, _ACTORS[name]))
        )

    def _check_failures(self, state: ClusterState) -> None:
        for name in self._applications:
            if self._is_new(state, name) and state.applications[name].status == FAILED:
                reason = state.applications[name].message.strip().rpartition("\n")[2]
                raise DeploymentFailed(f"Serve could not start `{name}`: {reason}")

    def _is_done(self, state: ClusterState) -> bool:
        """Whether the applications run, and no shard of the version before does beside new ones."""
        versions = {actor.version for actor in state.of_kind("shard")}
        if API in self._applications and len(versions) > 1:
            return False
        return all(
            self._is_new(state, name) and state.applications[name].status == "RUNNING"
            for name in self._applications
        )

    def _progress(self, state: ClusterState) -> str:
        statuses = ", ".join(
            f"{name} {state.applications[name].status if name in state.applications else 'starts'}"
            for name in self._applications
        )
        parts = []
        for kind, label in _PARTS.items():
            new = self._new(state, kind)
            if new:
                alive = sum(one.is_alive for one in new)
                parts.append(f"{alive} of {len(new)} {self._new_word}{label}")
        return f"{statuses}: {', '.join(parts)}" if parts else statuses

    def _new(self, state: ClusterState, kind: Kind) -> list[ActorState]:
        return [actor for actor in state.of_kind(kind) if actor.name not in self._known]

    def _without_room(self, state: ClusterState) -> Iterator[str]:
        """A sentence for each process that has waited too long for a node."""
        starting = {one.name: one for kind in _PARTS for one in self._new(state, kind)}
        starting = {name: one for name, one in starting.items() if one.node is None}
        now_s = self._clock()
        self._waiting_since = {
            name: self._waiting_since.get(name, now_s) for name in sorted(starting)
        }
        nodes = [node for node in state.nodes if node.cpus > 0]
        for name, since_s in self._waiting_since.items():
            kind = starting[name].kind
            if now_s - since_s < WAITING_S or kind is None or not nodes:
                continue
            lacking = shortage(starting[name].label, self._demand.cpus_of(kind), nodes)
            if lacking is not None:
                yield lacking
            elif kind == "ingress":
                yield (
                    "An ingress replica waits: every node has its share, or a replica of the "
                    "version before that has not ended yet."
                )

    def _timed_out(self, state: ClusterState, waiting: str, timeout_s: float) -> StackError:
        reasons = [self._progress(state)]
        reasons += [waiting] if waiting else []
        reasons += [
            found.message.strip().rpartition("\n")[2]
            for name in self._applications
            if (found := state.applications.get(name)) is not None and found.message
        ]
        return DeploymentTimedOut(
            f"Not finished after {timeout_s:.0f} s ({' '.join(reasons)}). The cluster goes on "
            "trying, and the version before serves meanwhile. Deploy the configuration before "
            "again to end this."
        )
