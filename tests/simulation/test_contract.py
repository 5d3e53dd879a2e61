"""The in-memory journal keeps its contract over the simulation's connections, too."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from actors.journal.memory_database import MemoryDatabase
from tests.contract.conftest import Store, store_in_memory
from tests.contract.test_backfill import *  # noqa: F403
from tests.contract.test_journal import *  # noqa: F403
from tests.contract.test_open_commits import *  # noqa: F403
from tests.contract.test_outbox import *  # noqa: F403
from tests.simulation.connections import Connection
from tests.simulation.fault_probabilities import FaultProbabilities, SeededRandom
from tests.simulation.loop import Process


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Store]:
    """An empty simulated Postgres, on the test's own loop."""
    loop = asyncio.get_running_loop()
    server = Process(loop, "postgres")  # type: ignore[arg-type]
    probabilities = FaultProbabilities(latency_s=0.0)

    def connect() -> Connection:
        return Connection(loop, server, probabilities, SeededRandom("contract"), timeout_s=5.0)  # type: ignore[arg-type]

    yield store_in_memory(MemoryDatabase(), connect)
