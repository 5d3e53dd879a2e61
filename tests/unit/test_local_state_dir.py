"""The state directory: stable ports, a private file written atomically, one writer at a time."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.local import state_dir as state_dir_module
from deploy.local.errors import StackError
from deploy.local.ports import answers, free_port, is_free
from deploy.local.state_dir import Stack, StateDirectory, assign_ports, assign_socket_dir
from tests.support.virtual_time import VirtualTime


@pytest.fixture
def state_dir(tmp_path: Path) -> StateDirectory:
    state_dir = StateDirectory(tmp_path / "home")
    state_dir.create()
    return state_dir


def test_an_unused_state_directory_has_an_empty_stack(state_dir: StateDirectory) -> None:
    stack = state_dir.load()

    assert stack.processes == {}
    assert not stack.is_complete


def test_what_is_saved_is_loaded_and_nobody_else_can_read_it(state_dir: StateDirectory) -> None:
    stack = Stack(ports={"ray": 1}, database_url="postgresql://u:secret@127.0.0.1/x")

    state_dir.save(stack)

    assert state_dir.load() == stack
    assert (state_dir.root / "stack.json").stat().st_mode & 0o077 == 0


def test_a_broken_stack_file_is_one_line_that_says_what_to_do(state_dir: StateDirectory) -> None:
    (state_dir.root / "stack.json").write_text("{half")

    with pytest.raises(
        StackError, match=r"Stop the running processes by hand, then remove that file"
    ):
        state_dir.load()


def test_ports_stay_the_same_from_start_to_start() -> None:
    stack = Stack()
    assign_ports(stack, ("ray", "nats"))
    first = dict(stack.ports)

    assign_ports(stack, ("ray", "nats"))

    assert stack.ports == first
    assert len(set(first.values())) == 2


def test_a_port_that_is_in_use_by_now_is_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = Stack(ports={"ray": port})

        assign_ports(stack, ("ray",))

        assert stack.ports["ray"] != port


def test_a_port_that_is_listened_on_is_not_free_and_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        assert not is_free(port)
        assert answers(port)


def test_a_free_port_is_free_and_not_one_of_the_taken() -> None:
    port = free_port()

    assert is_free(port)
    assert not answers(port)
    assert free_port(frozenset({port})) != port


def test_the_socket_folder_is_short_private_and_recreated_when_missing() -> None:
    stack = Stack()
    first = assign_socket_dir(stack)
    try:
        assert len(str(first)) <= 22
        assert first.stat().st_mode & 0o077 == 0
        assert assign_socket_dir(stack) == first
    finally:
        first.rmdir()

    second = assign_socket_dir(stack)
    second.rmdir()
    assert second != first


def test_a_second_command_waits_for_the_first_and_says_so(
    state_dir: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualTime()
    monkeypatch.setattr(state_dir_module, "time", clock)
    said: list[str] = []

    with state_dir.locked(lambda: said.append("nobody else is here")):
        with (
            pytest.raises(StackError, match="Another command"),
            state_dir.locked(lambda: said.append("waiting")),
        ):
            pass
        assert said == ["waiting"]
        assert clock.monotonic() >= state_dir_module._LOCK_TIMEOUT_S

    with state_dir.locked(lambda: said.append("waiting again")):
        assert said == ["waiting"]


def test_a_second_command_goes_on_when_the_first_ends(
    state_dir: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualTime()
    monkeypatch.setattr(state_dir_module, "time", clock)
    first = ExitStack()
    first.enter_context(state_dir.locked(lambda: None))
    clock.on_sleep = first.close

    with state_dir.locked(lambda: None):
        assert clock.monotonic() < state_dir_module._LOCK_TIMEOUT_S


def test_an_unwritable_state_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StackError, match="Set WALLET_HOME"):
        StateDirectory(tmp_path / "file" / "home").create()


def test_wallet_home_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WALLET_HOME", str(tmp_path))
    assert StateDirectory.of_this_checkout().root == tmp_path

    monkeypatch.delenv("WALLET_HOME")
    monkeypatch.chdir(tmp_path)
    assert StateDirectory.of_this_checkout().root == tmp_path / ".wallet"
