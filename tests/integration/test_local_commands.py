"""The stack commands: what they detect, leave unchanged and print."""

import io
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from deploy.cli import deploy_command, main, stack_commands, status
from deploy.local import startup
from deploy.local.errors import StackError
from deploy.local.processes import ProcessRecord, is_alive, spawn, stop
from deploy.local.progress import Progress
from deploy.local.readiness_client import Component, Readiness
from deploy.local.stack_state import StackState
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings


class Screen:
    """The output for the user."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self.console = Console(file=self._text, width=300)

    @property
    def text(self) -> str:
        return self._text.getvalue()


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDirectory:
    monkeypatch.setenv("WALLET_HOME", str(tmp_path / "home"))
    return StateDirectory(tmp_path / "home")


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ProcessRecord]:
    """A process of an earlier start, with the name of one of the servers."""
    process = spawn(
        "nats",
        [sys.executable, "-c", "import time; time.sleep(60)"],
        log_file=tmp_path / "sleeper.log",
        environment={},
    )
    yield process
    stop(process)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Counts starts instead of starting anything."""
    made: list[Settings] = []

    def start(
        settings: Settings, state_dir: StateDirectory, recorder: StackState, steps: Progress
    ) -> None:
        made.append(settings)
        recorder.stack.http_url = startup.http_url(settings)
        recorder.stack.is_complete = True
        recorder.save()

    monkeypatch.setattr(stack_commands, "start_stack", start)
    return made


def remember(state_dir: StateDirectory, process: ProcessRecord, *, complete: bool) -> None:
    state_dir.create()
    stack = state_dir.load()
    stack.processes[process.name] = process
    stack.is_complete = complete
    stack.http_url = "http://localhost:1"
    state_dir.save(stack)


def test_up_starts_and_says_where_and_what_to_try(
    state_dir: StateDirectory, screen: Screen, starts: list[Settings]
) -> None:
    stack_commands.up(Settings(http_port=8089), state_dir, screen.console)

    assert len(starts) == 1
    assert "The wallet service is up: http://localhost:8089" in screen.text
    assert "http://localhost:8089/docs" in screen.text
    assert sum(line.startswith("  curl ") for line in screen.text.splitlines()) == 3


def test_up_again_only_says_that_it_is_already_up(
    state_dir: StateDirectory,
    screen: Screen,
    starts: list[Settings],
    sleeper: ProcessRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember(state_dir, sleeper, complete=True)
    monkeypatch.setattr(stack_commands, "fetch_readiness", lambda _url: Readiness(is_ready=True))

    stack_commands.up(Settings(), state_dir, screen.console)

    assert starts == []
    assert is_alive(sleeper)
    assert "is already up" in screen.text


def test_up_again_on_a_service_that_is_not_ready_says_which_part(
    state_dir: StateDirectory,
    screen: Screen,
    starts: list[Settings],
    sleeper: ProcessRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember(state_dir, sleeper, complete=True)
    waiting = Component(name="nats", is_ready=False, detail="events wait")
    monkeypatch.setattr(
        stack_commands, "fetch_readiness", lambda _url: Readiness(is_ready=False, parts=(waiting,))
    )

    with pytest.raises(StackError, match="nats: events wait"):
        stack_commands.up(Settings(), state_dir, screen.console)

    assert starts == []
    assert is_alive(sleeper)


def test_deploying_onto_a_cluster_needs_servers_that_it_can_reach(
    state_dir: StateDirectory, screen: Screen, capsys: pytest.CaptureFixture[str]
) -> None:
    for address, message in (("10.0.0.1:6379", "WALLET_DATABASE_URL"), ("", "wallet up")):
        code = deploy_command.deploy(
            "api",
            address,
            deploy_command.Options(),
            settings=Settings(),
            state_dir=state_dir,
            console=screen.console,
        )
        assert code == deploy_command.EXIT_REFUSED
        printed = capsys.readouterr().err
        assert message in printed
        assert "Nothing was changed." in printed


def test_up_after_a_half_finished_start_stops_the_rest_and_starts_again(
    state_dir: StateDirectory, screen: Screen, starts: list[Settings], sleeper: ProcessRecord
) -> None:
    remember(state_dir, sleeper, complete=False)

    stack_commands.up(Settings(), state_dir, screen.console)

    assert not is_alive(sleeper)
    assert len(starts) == 1
    assert "left over from an earlier start" in screen.text


def test_up_leaves_another_process_with_a_stale_pid_alone(
    state_dir: StateDirectory, screen: Screen, starts: list[Settings], sleeper: ProcessRecord
) -> None:
    stale = sleeper.model_copy(update={"start_time": "long ago"})
    remember(state_dir, stale, complete=True)

    stack_commands.up(Settings(), state_dir, screen.console)

    assert is_alive(sleeper)
    assert len(starts) == 1


def test_a_port_in_use_is_one_line_and_nothing_is_started(
    state_dir: StateDirectory, screen: Screen
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(http_port=taken.getsockname()[1])

        with pytest.raises(StackError, match=r"is in use.*WALLET_HTTP_PORT"):
            stack_commands.up(settings, state_dir, screen.console)

    assert state_dir.load().processes == {}


def test_down_with_nothing_running_says_so_and_creates_nothing(
    state_dir: StateDirectory, screen: Screen
) -> None:
    stack_commands.down(Settings(), state_dir, screen.console)

    assert "Nothing is running." in screen.text
    assert not state_dir.root.exists()


def test_down_stops_what_is_recorded_and_forgets_it(
    state_dir: StateDirectory, screen: Screen, sleeper: ProcessRecord
) -> None:
    remember(state_dir, sleeper, complete=True)

    stack_commands.down(Settings(), state_dir, screen.console)

    assert not is_alive(sleeper)
    assert state_dir.load().processes == {}
    assert "Its data is kept." in screen.text


def test_clean_refuses_while_anything_runs(
    state_dir: StateDirectory, screen: Screen, sleeper: ProcessRecord
) -> None:
    remember(state_dir, sleeper, complete=True)

    with pytest.raises(StackError, match="wallet down"):
        stack_commands.clean(state_dir, screen.console)

    assert state_dir.root.exists()


def test_clean_removes_the_state_directory(state_dir: StateDirectory, screen: Screen) -> None:
    state_dir.create()
    state_dir.save(state_dir.load())

    stack_commands.clean(state_dir, screen.console)

    assert not state_dir.root.exists()


def test_status_of_a_dead_process_is_ended_and_not_ready(
    state_dir: StateDirectory, screen: Screen, sleeper: ProcessRecord
) -> None:
    remember(state_dir, sleeper, complete=True)
    stop(sleeper)

    assert status.status(Settings(), state_dir, screen.console) is False
    assert "ended" in screen.text
    assert "Ray is not running" in screen.text


def test_status_as_json_is_not_ready_where_nothing_or_a_dead_process_is(
    state_dir: StateDirectory, sleeper: ProcessRecord
) -> None:
    nothing, nothing_is_ready = status.status_as_json(Settings(), state_dir)
    remember(state_dir, sleeper, complete=True)
    stop(sleeper)
    dead, dead_is_ready = status.status_as_json(Settings(), state_dir)

    assert (nothing_is_ready, dead_is_ready) == (False, False)
    assert json.loads(nothing)["processes"] == []
    assert [process["running"] for process in json.loads(dead)["processes"]] == [False]
    assert json.loads(dead)["load"] is None


def test_commands_that_need_a_database_say_that_none_runs(state_dir: StateDirectory) -> None:
    with pytest.raises(StackError, match=r"wallet up.*WALLET_DATABASE_URL"):
        stack_commands.running_settings(Settings(), state_dir)


def test_a_process_that_comes_after_the_start_was_given_up_is_stopped(
    state_dir: StateDirectory, sleeper: ProcessRecord
) -> None:
    state_dir.create()
    recorder = StackState(state_dir, state_dir.load())
    recorder.close()

    with pytest.raises(StackError):
        recorder.add(sleeper)

    assert not is_alive(sleeper)
    assert state_dir.load().processes == {}


def test_an_error_is_one_line_on_stderr_and_exit_code_1(
    state_dir: StateDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wallet", "migrate"])
    monkeypatch.delenv("WALLET_DATABASE_URL", raising=False)

    with pytest.raises(SystemExit) as ended:
        main.main()

    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("Error: No database is running")


def test_a_setting_that_is_wrong_is_named(
    state_dir: StateDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wallet", "up"])
    monkeypatch.setenv("WALLET_HTTP_PORT", "many")

    with pytest.raises(SystemExit):
        main.main()

    assert "WALLET_HTTP_PORT" in capsys.readouterr().err


def test_a_failed_check_has_its_own_exit_code(
    state_dir: StateDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WALLET_DATABASE_URL", raising=False)
    monkeypatch.setattr(sys, "argv", ["wallet", "verify"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: No database is running")
