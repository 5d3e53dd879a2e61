"""`wallet status --address`: placement of a cluster, and its load where a driver can ask for it."""

import time
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from deploy.cli.deploy_command import opened_cluster
from deploy.cli.placement_view import render_placement
from deploy.cli.status_view import render_status
from deploy.cluster.rest import RestCluster
from deploy.cluster.state import Cluster, ClusterState
from deploy.local.status_source import StatusSource, open_source

_SAMPLE_INTERVAL_S: Final = 1.0


def cluster_status(address: str, console: Console, *, watch: bool) -> bool:
    """Print the placement, and the statistics; true if everything runs.

    Raises:
        StackError: the cluster does not answer.
    """
    with opened_cluster(address) as cluster:
        if isinstance(cluster, RestCluster):
            return _show(cluster, None, console, watch=watch)
        with open_source() as source:
            return _show(cluster, source, console, watch=watch)


def _show(cluster: Cluster, source: StatusSource | None, console: Console, *, watch: bool) -> bool:
    if not watch:
        state, page = _page(cluster, source)
        console.print(page)
        return runs(state)
    with Live(console=console, screen=True) as live:
        while True:
            live.update(_page(cluster, source)[1], refresh=True)
            if source is None:
                time.sleep(_SAMPLE_INTERVAL_S)


def runs(state: ClusterState) -> bool:
    """Whether every application runs and every process has a node."""
    statuses = [found.status for found in state.applications.values()]
    parts = [actor for actor in state.actors if actor.kind is not None]
    return (
        bool(statuses) and set(statuses) == {"RUNNING"} and all(actor.is_alive for actor in parts)
    )


def _page(cluster: Cluster, source: StatusSource | None) -> tuple[ClusterState, RenderableType]:
    state = cluster.read()
    if source is None:
        return state, render_placement(state)
    before = source.snapshot()
    time.sleep(_SAMPLE_INTERVAL_S)
    return state, Group(render_placement(state), Text(), render_status(before, source.snapshot()))
