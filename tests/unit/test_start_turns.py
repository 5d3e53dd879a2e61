"""Processes load their modules in turns, and none waits for one that is gone."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.start_turns import start_turn, starting_ray_workers


class Waits(list[float]):
    """Notes pauses, and ends the turn that is waited for at the third."""

    def __init__(self, holder: ExitStack) -> None:
        self._holder = holder

    def sleep(self, seconds: float) -> None:
        self.append(seconds)
        if len(self) == 3:
            self._holder.close()


def test_as_many_as_there_are_places_load_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ExitStack(), ExitStack()
    waits = Waits(first)
    monkeypatch.setattr("runtime.start_turns.time.sleep", waits.sleep)
    first.enter_context(start_turn(tmp_path, places=2))
    second.enter_context(start_turn(tmp_path, places=2))
    assert waits == []
    with start_turn(tmp_path, places=2) as has_place:
        assert has_place
        assert len(waits) == 3, "until the first one gave its place back"
    second.close()


def test_after_a_while_one_starts_without_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("runtime.start_turns.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("runtime.start_turns.time.sleep", lambda _: None)
    with start_turn(tmp_path, places=1), start_turn(tmp_path, places=1, wait_s_max=5.0) as placed:
        assert not placed
    assert 5 < next(clock) < 12


def test_the_place_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from runtime.start_turns import start_turn\n"
        "start_turn(Path(sys.argv[1]), places=1).__enter__(); os._exit(1)"
    )
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert died.returncode == 1
    with start_turn(tmp_path, places=1, wait_s_max=0.0) as has_place:
        assert has_place


def test_who_has_time_lets_the_workers_start_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [2, 1, 0, 5]
    monkeypatch.setattr("runtime.start_turns.time.sleep", lambda _: None)
    with start_turn(tmp_path, places=1, starting=lambda: left.pop(0)) as has_place:
        assert has_place
        assert left == [2, 1, 0, 5], "who is in a hurry does not look"
    with start_turn(tmp_path, places=1, politely=True, starting=lambda: left.pop(0)) as has_place:
        assert has_place
        assert left == [5], "until fewer than one were starting"


def test_as_many_places_as_workers_may_start_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_maximum_startup_concurrency", "2")
    with start_turn(tmp_path), start_turn(tmp_path), start_turn(tmp_path, wait_s_max=0.0) as third:
        assert not third


def test_workers_in_rays_part_of_their_start_are_counted(tmp_path: Path) -> None:
    for number, arguments in enumerate(
        [
            ["python", "/ray/_private/workers/default_worker.py", "--node-ip=::1"],
            ["raylet", "--python_worker_command=python /ray/default_worker.py --node-ip=::1"],
            ["ray::IDLE", "", ""],
            ["python", "-m", "bench"],
        ]
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes("\0".join(arguments).encode())
    (tmp_path / "4").mkdir()  # It has ended meanwhile.
    assert starting_ray_workers(tmp_path) == 1


def test_without_a_folder_of_its_own_a_process_starts_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "missing" / "folder"):
        with start_turn(folder) as has_place:
            assert not has_place


def test_loading_it_loads_nothing_that_should_wait() -> None:
    program = (
        "import sys, runtime.start_turns\n"
        "print([name for name in sys.modules if name.partition('.')[0] in"
        " ('pydantic', 'msgspec', 'asyncpg', 'nats', 'ray', 'structlog', 'actors')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
