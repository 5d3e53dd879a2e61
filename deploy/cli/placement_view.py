"""Which node has which processes, as a table of at most 80 columns."""

from collections import Counter
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.cluster.changes import Changes
from deploy.cluster.room import KINDS, Room
from deploy.cluster.state import ActorState, ClusterState, Kind, NodeState

_TITLES: Final[dict[Kind, str]] = {
    "shard": "SHARDS",
    "ingress": "INGRESS",
    "projection": "PROJECTIONS",
}


def render_placement(state: ClusterState) -> RenderableType:
    """Nodes with their shards, ingress replicas and projections, and what has no node."""
    table = _table("NODE", "CPUS", "FREE", *_TITLES.values())
    for node in _sorted(state):
        here = [actor for actor in state.actors if actor.node == node.id]
        table.add_row(
            f"{node.name} (head)" if node.is_head else node.name,
            f"{node.cpus:g}",
            f"{node.free_cpus:g}",
            *(_listed([one for one in here if one.kind == kind]) for kind in KINDS),
        )
    known = {node.id for node in state.nodes}
    lines: list[Text] = []
    for actor in state.actors:
        if actor.kind is not None and (actor.node is None or actor.node not in known):
            where = "waits for a node" if actor.node is None else "was on a node that is lost"
            lines.append(Text(f"{actor.label} {where}", style="red"))
    lines += [Text(line, style="yellow") for line in unevenness(state)]
    return Group(_applications(state), Text(), table, *lines)


def unevenness(state: ClusterState) -> list[str]:
    """A sentence for each kind of process of which a node has two more than another."""
    nodes = [node for node in state.nodes if node.cpus > 0]
    found = []
    for kind in KINDS:
        running = Counter(actor.node for actor in state.of_kind(kind))
        counts = [running[node.id] for node in nodes]
        if counts and max(counts) > min(counts) + 1:
            each = "/".join(map(str, sorted(counts)))
            found.append(
                f"{_TITLES[kind].capitalize()} are not spread evenly ({each}): the next deployment "
                "spreads them anew."
            )
    return found


def render_changes(changes: Changes) -> RenderableType:
    """What a deployment changes."""
    if changes.is_empty:
        return Text("Nothing changes.")
    table = _table("APPLICATION", "SETTING", "NOW", "THEN")
    for line in changes.lines:
        table.add_row(line.application, Text(line.name), Text(line.before), Text(line.after))
    for name in sorted(changes.applications - {line.application for line in changes.lines}):
        table.add_row(name, "", "", "restarted")
    for name in sorted(changes.removed):
        table.add_row(Text(name, style="red"), "", "", Text("REMOVED", style="red"))
    return table


def render_room(room: Room) -> RenderableType:
    """Where the new processes are expected."""
    table = _table("NODE", *(_TITLES[kind] for kind in room.placement))
    for node in next(iter(room.placement.values()), {}):
        table.add_row(node, *(str(counts[node]) for counts in room.placement.values()))
    return table


def _applications(state: ClusterState) -> Text:
    if not state.applications:
        return Text("Nothing is deployed.", style="red")
    text = Text()
    for name, found in sorted(state.applications.items()):
        colour = "green" if found.status == "RUNNING" else "red"
        text.append_text(Text.assemble(f"{name} is ", (found.status, colour), "  "))
    return text


def _sorted(state: ClusterState) -> list[NodeState]:
    return sorted(state.nodes, key=lambda node: (not node.is_head, node.name))


def _listed(actors: list[ActorState]) -> str:
    """Numbers of shards and projections; replicas have none, so they are counted."""
    if not actors or actors[0].kind == "ingress":
        return str(len(actors))
    numbers = sorted(
        (f"{actor.name.rpartition('-')[2]}{'' if actor.is_alive else '…'}" for actor in actors),
        key=lambda text: int(text.rstrip("…")),
    )
    return f"{len(actors)}: {' '.join(numbers)}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
