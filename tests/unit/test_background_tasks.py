"""Background tasks: a failed task is counted and restarted, and the process continues."""

import asyncio
import os

import pytest

from actors.history.guard import HistoryGuard
from actors.journal.ports import JournalConflict
from actors.outbox.relay import OutboxRelay
from actors.shard import process as module
from actors.shard.background_tasks import BackgroundTasks
from actors.shard.expiry_sweep import ExpirySweep
from actors.shard.metrics import samples
from actors.shard.process import BACKGROUND_TASKS, ShardProcess
from actors.shard.shard import Shard
from actors.shard.write_health import WriteHealth
from runtime.settings import Settings
from tests.support.waiting import stop, until

SETTINGS = Settings(_env_file=None, database_url="postgres://127.0.0.1:1/none")


async def test_a_failed_background_task_is_restarted_and_counted() -> None:
    chores = BackgroundTasks(pause_s=0.0)
    runs = 0

    async def task() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise JournalConflict("40P01 deadlock detected")
        await asyncio.Event().wait()

    kept = asyncio.create_task(chores.supervise("forget", task))
    await until(lambda: runs == 3)
    assert chores.failures == {"forget": 2}
    await stop(kept)


async def test_a_background_task_that_ends_is_a_failure_too() -> None:
    chores = BackgroundTasks(pause_s=0.0)

    async def task() -> None:
        await asyncio.sleep(0)

    kept = asyncio.create_task(chores.supervise("sweep", task))
    await until(lambda: chores.failures["sweep"] >= 2)
    await stop(kept)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which the process would have exited."""
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(module, "configure_logging", lambda _settings: None)
    return statuses


TASK_OF = {
    "relay": (OutboxRelay, "run"),
    "forget": (OutboxRelay, "prune"),
    "sweep": (OutboxRelay, "sweep"),
    "watch": (Shard, "reject_while_stalled"),
    "probe": (WriteHealth, "run"),
    "history": (HistoryGuard, "run"),
    "expiry": (ExpirySweep, "run"),
}


def test_every_background_task_is_tried() -> None:
    assert set(TASK_OF) == set(BACKGROUND_TASKS)


async def _fails(_self: object, *_: object) -> None:
    raise JournalConflict("40P01 deadlock detected")


@pytest.mark.parametrize("name", BACKGROUND_TASKS)
async def test_no_background_task_of_a_shard_ends_its_process(
    name: str, monkeypatch: pytest.MonkeyPatch, exits: list[int]
) -> None:
    monkeypatch.setattr(*TASK_OF[name], _fails)
    process = ShardProcess(0, SETTINGS)
    await until(lambda: process.statistics().chore_failures[name] > 0)
    assert exits == []
    counted = {
        sample.labels["chore"]: sample.value
        for sample in samples(process.statistics())
        if sample.name == "wallet_shard_chore_failures_total"
    }
    assert counted[name] == 1
    assert set(counted) == set(BACKGROUND_TASKS), (
        "tasks without failures too, so that a rate starts at zero"
    )
    await process.close()


async def test_a_shard_whose_writing_fails_ends_its_process(
    monkeypatch: pytest.MonkeyPatch, exits: list[int]
) -> None:
    monkeypatch.setattr(Shard, "run", _fails)
    process = ShardProcess(0, SETTINGS)
    await until(lambda: exits == [1])
    await process.close()
