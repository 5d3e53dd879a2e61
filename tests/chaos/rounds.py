"""One round: start clients, inject faults, wait for recovery, check ledger consistency."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Final

import msgspec

from tests.chaos.clients import IMPATIENT, Load
from tests.chaos.faults import Fault, Scale
from tests.chaos.stack import ChaosStack
from tests.support.backlog import drained_s_of
from verification.database import connect
from verification.facts import ClientCall
from verification.history import check_history

CLIENTS: Final = 20
_CALM_S: Final = 2.0
"""Minimum load before the fault; up to twice that."""
_AFTER_S: Final = 2.0
"""Load after every wallet accepted a write again."""
_BACK_S_MAX: Final = 60.0
_DRAIN_S_MAX: Final = 90.0
_POLL_S: Final = 0.05


class Result(msgspec.Struct, kw_only=True):
    """The result of a round. Times in seconds."""

    faults: list[str]
    wallets: list[str]
    requests: int
    errors: Counter[str]
    longest_s: float
    back_s: float | None
    drained_s: float | None
    lasted_s: float
    violations: list[str]
    missed: list[str]
    """Promises about these faults that were not kept."""
    history: list[ClientCall]

    @property
    def title(self) -> str:
        return " + ".join(self.faults)


async def run_round(
    stack: ChaosStack, faults: Sequence[Fault], *, name: str, seed: str, scale: Scale
) -> Result:
    """Run one round."""
    random = Random(f"{seed} {name}")
    load = Load(stack.url, name=name, seed=f"{seed} {name}", clients=CLIENTS)
    await load.start()
    await asyncio.sleep(random.uniform(_CALM_S, 2 * _CALM_S))
    began = time.monotonic_ns()
    moments = await asyncio.gather(*(_inject(stack, one, random, scale) for one in faults))
    lasted_s = (time.monotonic_ns() - began) / 1e9
    moment = max(moments)
    back = await _until_back(load, moment)
    await asyncio.sleep(_AFTER_S)
    await load.stop()
    drained_s = await drained_s_of(stack.database_url, timeout_s=_DRAIN_S_MAX)
    history = load.state.history
    result = Result(
        faults=[fault.name for fault in faults],
        wallets=load.wallets,
        requests=load.calls,
        errors=load.errors,
        longest_s=load.longest_s(began),
        back_s=back,
        drained_s=drained_s,
        lasted_s=lasted_s,
        violations=await _violations(stack, history),
        missed=[],
        history=history,
    )
    if drained_s is None:
        result.violations.append(
            f"not everything was published and projected after {_DRAIN_S_MAX:.0f} s"
        )
    if back is None:
        result.violations.append(f"not every wallet was written to within {_BACK_S_MAX:.0f} s")
    if load.abandoned:
        result.violations.append(f"{load.abandoned} outcomes were never learned")
    result.missed = missed_promises(faults, result)
    return result


async def _inject(stack: ChaosStack, fault: Fault, random: Random, scale: Scale) -> int:
    await asyncio.sleep(random.uniform(0.0, 1.0))
    return await fault.inject(stack, random, scale)


async def _until_back(load: Load, moment: int) -> float | None:
    deadline = time.monotonic() + _BACK_S_MAX
    while (back := load.back_after_s(moment)) is None:
        load.raise_failures()
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_POLL_S)
    return back


async def _violations(stack: ChaosStack, history: list[ClientCall]) -> list[str]:
    """Check the clients' history against Postgres. The other rules are checked at the end."""
    connection = await connect(stack.database_url)
    try:
        return [str(one) for one in await check_history(connection, history)]
    finally:
        await connection.close()


def missed_promises(faults: Sequence[Fault], result: Result) -> list[str]:
    if len(faults) > 1:
        return []
    (fault,) = faults
    missed = []
    if fault.back_s is not None and (result.back_s or _BACK_S_MAX) > fault.back_s:
        missed.append(f"back within {fault.back_s:g} s")
    if fault.unharmed and result.errors.keys() - {IMPATIENT}:
        missed.append("no error")
    return missed
