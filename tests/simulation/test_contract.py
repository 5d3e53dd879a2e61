"""The simulated journal and outbox keep the contract that Postgres keeps: the very same tests."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.contract.conftest import Store, store_in_memory
from tests.contract.test_journal import *  # noqa: F403
from tests.contract.test_open_commits import *  # noqa: F403
from tests.contract.test_outbox import *  # noqa: F403
from tests.simulation.chance import Dice, Odds
from tests.simulation.connections import Connection, SimulatedJournal, SimulatedOutbox
from tests.simulation.loop import Process
from tests.support.memory_database import Database


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Store]:
    """An empty simulated Postgres, on the test's own loop."""
    loop = asyncio.get_running_loop()
    database = Database()
    server = Process(loop, "postgres")  # type: ignore[arg-type]  # any loop or clock will do
    odds = Odds(latency_s=0.0)
    link = Connection(loop, server, odds, Dice("contract"), timeout_s=5.0)  # type: ignore[arg-type]  # any loop or clock will do
    yield store_in_memory(
        SimulatedJournal(database, link), SimulatedOutbox(database, link), database
    )
