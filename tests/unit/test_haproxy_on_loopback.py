"""HAProxy's statistics and metrics listen on loopback, and nothing else of it is changed."""

import os
import subprocess
from pathlib import Path

import pytest

from serve_app.local.haproxy_on_loopback import script_in

# As Ray Serve 2.60 writes it, where it says where to listen.
CONFIGURATION = """\
frontend prometheus
    bind :29101
    mode http
frontend http_frontend
    bind *:8089
backend http-api
    server one 127.0.0.1:30002 check
listen stats
  bind *:28404
  stats enable
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return script_in(tmp_path, "/bin/echo")


def run(script: Path, *arguments: str) -> str:
    ports = {"RAY_SERVE_HAPROXY_STATS_PORT": "28404", "RAY_SERVE_HAPROXY_METRICS_PORT": "29101"}
    done = subprocess.run(
        [str(script), *arguments], env=os.environ | ports, capture_output=True, check=True
    )
    return done.stdout.decode()


def test_two_doors_are_closed_and_the_front_door_stays_open(script: Path, tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(CONFIGURATION)

    run(script, "-db", "-f", str(file))
    run(script, "-db", "-f", str(file))  # a reload finds its own work

    closed = CONFIGURATION.replace(":29101", "127.0.0.1:29101").replace(
        "*:28404", "127.0.0.1:28404"
    )
    assert file.read_text() == closed


def test_haproxy_gets_every_argument_as_it_came(script: Path, tmp_path: Path) -> None:
    assert run(script, "-f", "a file", "-sf", "1") == "-f a file -sf 1\n"


def test_a_configuration_that_cannot_be_changed_starts_no_haproxy(
    script: Path, tmp_path: Path
) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run(script, "-f", str(tmp_path / "missing.cfg"))


def test_the_script_is_for_its_owner_and_stays_the_same(script: Path, tmp_path: Path) -> None:
    before = script.stat()

    assert script_in(tmp_path, "/bin/echo") == script
    assert script.stat().st_ino == before.st_ino
    assert before.st_mode & 0o777 == 0o700


def test_a_script_never_stands_in_front_of_itself(script: Path, tmp_path: Path) -> None:
    assert script_in(tmp_path / "other", str(script)) == script
