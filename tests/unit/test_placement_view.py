"""Placement for people: within 80 columns, with what is uneven, waits, or is lost."""

import io

from rich.console import Console, RenderableType

from deploy.cli.cluster_status import runs
from deploy.cli.placement_view import render_changes, render_placement, render_room, unevenness
from deploy.cluster.changes import Change, Changes
from deploy.cluster.room import Room
from tests.support.clusters import (
    API_CONFIG,
    PROJECTIONS_CONFIG,
    application,
    cluster_state,
    moved,
    node,
    projection,
    replica,
    shard,
)

APPLICATIONS = (application(API_CONFIG), application(PROJECTIONS_CONFIG))
EVEN = cluster_state(
    node(0, 2.96),
    node(1, 2.98),
    node(2, 3.48),
    actors=[
        *(shard(number, number % 3) for number in range(4)),
        *(replica(f"r{number}", number) for number in range(3)),
        projection(0, 0),
        projection(1, 1),
    ],
    applications=APPLICATIONS,
)


def shown(page: RenderableType) -> list[str]:
    text = io.StringIO()
    Console(width=80, file=text).print(page)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_each_node_is_a_line_with_its_parts() -> None:
    lines = shown(render_placement(EVEN))
    assert lines[0] == "api is RUNNING  projections is RUNNING"
    assert lines[2].split() == ["NODE", "CPUS", "FREE", "SHARDS", "INGRESS", "PROJECTIONS"]
    assert lines[3].split() == ["10.0.0.0", "(head)", "4", "2.96", "2:", "0", "3", "1", "1:", "0"]
    assert lines[5].split() == ["10.0.0.2", "4", "3.48", "1:", "2", "1", "0"]
    assert len(lines) == 6
    assert runs(EVEN)


def test_a_large_cluster_fits_into_80_columns() -> None:
    nodes = [node(number, 123.45, cpus=128) for number in range(12)]
    actors = [shard(number, number % 12) for number in range(200)]
    lines = shown(render_placement(cluster_state(*nodes, actors=actors, applications=APPLICATIONS)))
    assert max(map(len, lines)) <= 80
    assert "17:" in " ".join(lines)


def test_what_waits_and_what_was_lost_is_named() -> None:
    actors = [*EVEN.actors, shard(4, None), replica("late", None), shard(5, 9)]
    lines = shown(render_placement(moved(EVEN, actors=actors)))
    assert "shard-4 waits for a node" in lines
    assert "ingress replica waits for a node" in lines
    assert "shard-5 was on a node that is lost" in lines
    assert not runs(moved(EVEN, actors=actors))


def test_stacked_shards_are_called_uneven() -> None:
    stacked = moved(EVEN, actors=[shard(number, 2) for number in range(4)])
    (line,) = unevenness(stacked)
    assert line.startswith("Shards are not spread evenly (0/0/4)")
    assert unevenness(EVEN) == []


def test_two_two_and_none_is_uneven_too() -> None:
    stacked = moved(EVEN, actors=[shard(number, number % 2) for number in range(4)])
    assert unevenness(stacked) != []


def test_an_empty_cluster_says_so() -> None:
    empty = cluster_state(node(0, 4))
    assert shown(render_placement(empty))[0] == "Nothing is deployed."
    assert not runs(empty)


def test_changes_show_both_values_and_what_is_removed() -> None:
    changes = Changes(
        lines=[Change(application="api", name="shard_count", before="2", after="4")],
        applications=frozenset({"api", "projections"}),
        restarted=frozenset({"api", "projections"}),
        removed=frozenset({"other"}),
    )
    lines = [line.split() for line in shown(render_changes(changes))]
    assert ["api", "shard_count", "2", "4"] in lines
    assert ["projections", "restarted"] in lines
    assert ["other", "REMOVED"] in lines


def test_brackets_in_a_value_are_no_markup() -> None:
    changes = Changes(
        lines=[Change(application="api", name="x", before="[red]", after="[/nothing]")],
        applications=frozenset({"api"}),
        restarted=frozenset({"api"}),
        removed=frozenset(),
    )
    assert "[/nothing]" in " ".join(shown(render_changes(changes)))


def test_room_shows_where_new_processes_are_expected() -> None:
    room = Room(
        placement={
            "shard": {"10.0.0.1": 2, "10.0.0.2": 2},
            "ingress": {"10.0.0.1": 1, "10.0.0.2": 0},
        },
        problems=[],
        notes=[],
    )
    lines = [line.split() for line in shown(render_room(room))]
    assert lines[1:] == [["10.0.0.1", "2", "1"], ["10.0.0.2", "2", "0"]]
