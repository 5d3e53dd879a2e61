"""Readiness polls and log reading: a result is returned whatever the other side does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.cli import log_viewer
from deploy.local.errors import StackError
from deploy.local.log_files import last_matching_line, rotate, tail
from deploy.local.ports import free_port
from deploy.local.readiness_client import fetch_readiness
from deploy.local.state_dir import StateDirectory
from tests.support.virtual_time import VirtualTime

READY = {"postgres": {"ready": True, "detail": "answers"}}
WAITING = {**READY, "nats": {"ready": False, "detail": "events wait in the outbox"}}


@contextmanager
def service(status: int, body: str) -> Iterator[str]:
    """A service with one fixed response."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_ready_service_is_ready_in_each_of_its_parts() -> None:
    with service(200, json.dumps({"ready": True, "components": READY})) as url:
        answer = fetch_readiness(url)

    assert answer.is_ready
    assert [(part.name, part.is_ready) for part in answer.parts] == [("postgres", True)]


def test_a_service_that_is_not_ready_says_which_part() -> None:
    with service(503, json.dumps({"ready": False, "components": WAITING})) as url:
        answer = fetch_readiness(url)

    assert not answer.is_ready
    assert answer.summary == "nats: events wait in the outbox"


@pytest.mark.parametrize("body", ["", "<html>500</html>", "[]", '{"components": 1}', '{"a": {}}'])
def test_an_answer_from_something_else_is_not_ready(body: str) -> None:
    with service(500, body) as url:
        answer = fetch_readiness(url)

    assert not answer.is_ready
    assert answer.parts == ()


def test_nobody_there_is_not_ready() -> None:
    assert not fetch_readiness(f"http://127.0.0.1:{free_port()}").is_ready


def test_the_last_informative_line_is_found(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("FATAL: first\nFATAL: last\nbye\n")

    assert last_matching_line(log, "FATAL") == "FATAL: last"
    assert last_matching_line(log, "PANIC") == ""
    assert tail(tmp_path / "none.log") == []


def test_a_log_that_has_grown_large_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 20_000_001)

    rotate(log)

    assert not log.exists()
    assert (tmp_path / "a.log.1").exists()


def test_logs_are_chosen_by_name_and_an_unknown_name_lists_the_known(
    tmp_path: Path,
) -> None:
    state_dir = StateDirectory(tmp_path)
    state_dir.create()
    state_dir.log_of("nats").write_text("one\ntwo\n")
    state_dir.log_of("postgres").write_text("three\n")

    chosen = log_viewer.files_of(state_dir, "nats")

    assert list(log_viewer.last_lines(chosen, 1)) == ["nats | two"]
    assert len(log_viewer.files_of(state_dir, None)) == 2
    with pytest.raises(StackError, match="Available logs: nats, postgres"):
        log_viewer.files_of(state_dir, "redis")


def test_without_logs_no_name_is_offered(tmp_path: Path) -> None:
    state_dir = StateDirectory(tmp_path)
    state_dir.create()

    assert log_viewer.files_of(state_dir, None) == []
    with pytest.raises(StackError, match="There are no logs yet"):
        log_viewer.files_of(state_dir, "redis")


def test_following_gives_whole_lines_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualTime()
    monkeypatch.setattr(log_viewer, "time", clock)
    log = tmp_path / "a.log"
    log.write_text("old\n")
    lines = log_viewer.new_lines([("a", log)])
    clock.on_sleep = lambda: log.write_text("old\nnew\nha")

    assert next(lines) == "a | new"
