"""When an overloaded service counts as recovered."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from bench import overload
from bench.overload import Probe


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It uses the clock of its event loop."""
    monotonic = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr(overload, "time", monotonic)


def probe(began: float, took: float = 0.01, status: int = 201) -> Probe:
    return Probe(began, began + took, status, "")


async def recovered(*probes: Probe, over: float) -> float | None:
    done: Any = SimpleNamespace(done=list(probes))
    return await overload._recovery(done, over, 0.01)


async def test_it_is_well_after_the_last_probe_that_was_refused_or_slow() -> None:
    over = 0.0
    steady = [probe(over + 3.5 + n / 10) for n in range(15)]
    assert (
        await recovered(probe(over + 1, status=429), probe(over + 2, 1.0), *steady, over=over)
        == 3.0
    )


async def test_it_was_well_all_along() -> None:
    over = 0.0
    assert await recovered(*(probe(over + n / 10) for n in range(15)), over=over) == 0.0


async def test_it_may_never_be_well() -> None:
    over = 0.0
    assert await recovered(*(probe(over + n, status=503) for n in range(20)), over=over) is None
