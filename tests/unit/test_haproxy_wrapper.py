"""HAProxy's configuration: what is changed; an unknown configuration is an error."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import haproxy_start
from deploy.local.haproxy_configuration import (
    ClientTimeouts,
    UnknownConfiguration,
    prepared,
)
from deploy.local.haproxy_wrapper import write_wrapper
from tests.support.front_door import FrontDoor

TIMEOUTS = ClientTimeouts(header_s=7, idle_s=8)
PAGES = Path("/pages")


@pytest.fixture
def door(tmp_path: Path) -> FrontDoor:
    return FrontDoor(tmp_path)


@pytest.fixture
def text(door: FrontDoor) -> str:
    """The configuration of the installed Ray Serve with one replica."""
    door.write(replica=30002)
    return door.configuration.read_text()


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def binds(text: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in lines(text) if line.startswith("bind ")]


def test_only_statistics_and_metrics_are_moved_to_loopback(text: str, door: FrontDoor) -> None:
    assert any(bind.startswith("*:") for bind in binds(text))

    found = binds(prepared(text, TIMEOUTS, PAGES).text)

    assert len(found) == 3
    assert f"127.0.0.1:{door.port}" in found
    assert all(bind.startswith("127.0.0.1:") for bind in found)


def test_a_front_door_for_everybody_stays_one(text: str, door: FrontDoor) -> None:
    text = text.replace(f"bind 127.0.0.1:{door.port}", f"bind *:{door.port}")

    assert f"*:{door.port}" in binds(prepared(text, TIMEOUTS, PAGES).text)


def test_clients_have_timeouts_and_half_closed_ones_their_answers(text: str) -> None:
    found = lines(prepared(text, TIMEOUTS, PAGES).text)

    def last(beginning: str) -> str:
        return [line for line in found if line.startswith(beginning)][-1]

    assert last("timeout http-request") == "timeout http-request 7s"
    assert last("timeout http-keep-alive") == "timeout http-keep-alive 8s"
    assert found.index("no option abortonclose") > found.index("option abortonclose")


def test_prepared_once_more_it_stays_the_same(text: str) -> None:
    once = prepared(text, TIMEOUTS, PAGES)

    assert prepared(once.text, TIMEOUTS, PAGES) == once


def test_without_routes_nothing_is_listened_to(door: FrontDoor) -> None:
    door.write(replica=None)

    found = prepared(door.configuration.read_text(), TIMEOUTS, PAGES)

    assert binds(found.text) == []
    assert found.standby is None
    assert prepared(found.text, TIMEOUTS, PAGES) == found


def test_a_standby_has_the_front_door_and_no_port_of_its_successor(
    text: str, door: FrontDoor
) -> None:
    standby = prepared(text, TIMEOUTS, PAGES).standby

    assert standby is not None
    assert binds(standby) == [f"127.0.0.1:{door.port}"]
    assert "stats socket" not in standby
    assert "    use_backend http-api if is_http-api" in standby.splitlines()


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        ("listen stats", "listen statistics"),
        ("frontend prometheus", "frontend metrics"),
        ("frontend http_frontend", "frontend http"),
        ("  stats enable", "  bind *:1234\n  stats enable"),
        ("listen stats\n  bind *:", "listen stats\n  bind [::]:"),
        ("listen stats\n  bind *:", "listen stats\n  bind :::"),
        ("listen stats", "listen more\n  bind *:1234\nlisten stats"),
        ("listen stats", "peers others\n  bind *:1234\nlisten stats"),
        ("listen stats", "defaults\n  option abortonclose\nlisten stats"),
        ("backend http-api", "backend http-api\n    option abortonclose"),
        ("frontend http_frontend", "frontend http_frontend\n    timeout http-request 1h"),
        ("timeout client 3600s", ""),
    ],
)
def test_what_is_not_as_it_is_known_is_refused(text: str, known: str, unknown: str) -> None:
    assert known in text
    with pytest.raises(UnknownConfiguration):
        prepared(text.replace(known, unknown, 1), TIMEOUTS, PAGES)


@pytest.mark.parametrize("text", ["", "bind *:8089\n", "\n# nothing\n"])
def test_no_configuration_at_all_is_refused(text: str) -> None:
    with pytest.raises(UnknownConfiguration):
        prepared(text, TIMEOUTS, PAGES)


# -- the script ------------------------------------------------------------------------------------


def test_the_script_is_for_its_owner_and_stays_the_same(tmp_path: Path) -> None:
    script = write_wrapper(tmp_path, "/bin/echo")
    before = script.stat()

    assert write_wrapper(tmp_path, "/bin/echo") == script
    assert script.stat().st_ino == before.st_ino
    assert before.st_mode & 0o777 == 0o700


def test_a_script_never_wraps_itself(tmp_path: Path) -> None:
    script = write_wrapper(tmp_path, "/bin/echo")

    assert write_wrapper(tmp_path / "other", str(script)) == script


@pytest.mark.skipif(sys.platform != "linux", reason="watchers are Linux's")
def test_haproxy_stops_with_the_node_that_started_it(tmp_path: Path) -> None:
    holder = tmp_path / haproxy_start.HOLDER
    with subprocess.Popen(["sleep", "60"]) as raylet, subprocess.Popen(["sleep", "60"]) as haproxy:
        ends, node_ends = os.pidfd_open(haproxy.pid), os.pidfd_open(raylet.pid)
        holder.write_text(str(haproxy.pid))
        raylet.kill()
        haproxy_start.Watcher("/bin/echo", tmp_path, node_ends, node_ends).watch(haproxy.pid, ends)
        assert haproxy.wait() == -signal.SIGUSR1
    assert not holder.exists()  # so that no standby starts


@pytest.mark.skipif(sys.platform != "linux", reason="watchers are Linux's")
def test_a_raylet_is_found_among_the_ancestors(tmp_path: Path) -> None:
    raylet = tmp_path / "raylet"
    shutil.copy("/bin/sh", raylet)
    command = [str(raylet), "-c", "sh -c 'echo $$; exec sleep 60' & wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        child = int(node.stdout.readline())
        assert haproxy_start.raylet_of(child) == node.pid
        assert haproxy_start.raylet_of(os.getpid()) is None
        os.kill(child, signal.SIGKILL)
        node.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="watchers are Linux's")
def test_a_standby_ends_when_its_manager_is_gone_and_nobody_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haproxy_start, "_POLL_S", 0.01)
    monkeypatch.setattr(haproxy_start, "_ABANDONED_S", 0.02)
    manager = subprocess.Popen(["sleep", "60"])
    watcher = haproxy_start.Watcher("/bin/echo", tmp_path, os.pidfd_open(manager.pid))
    holder = tmp_path / haproxy_start.HOLDER
    with subprocess.Popen(["sleep", "60"]) as standby:
        holder.write_text(str(standby.pid))
        manager.kill()
        manager.wait()
        watcher.wait_for(standby)
        assert standby.returncode == -signal.SIGUSR1
    assert not holder.exists()
