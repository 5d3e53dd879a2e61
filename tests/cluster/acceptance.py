"""What a whole run of the cluster tests has seen."""

from collections import Counter
from typing import Final

import msgspec

from tests.support.steady_load import SteadyLoad
from verification.facts import ClientCall

HEAD: Final = ("fault", "writes", "failed attempts", "longest wait", "measured", "target")


class FaultResult(msgspec.Struct, kw_only=True):
    """What clients and the balancer saw of one fault. Times in seconds."""

    name: str
    what: str
    target: str
    writes: int
    failures: Counter[str]
    """Attempts that failed; all were repeated under their key and succeeded."""
    longest_s: float
    """From the start of a client's first attempt to its success."""
    measured: str = ""
    """Whatever else the target is about."""

    def cells(self) -> tuple[str, ...]:
        failures = ", ".join(f"{count:,} × {one}" for one, count in self.failures.most_common())
        return (
            self.name,
            f"{self.writes:,}",
            failures or "none",
            f"{self.longest_s:.1f} s",
            self.measured,
            self.target,
        )

    def __str__(self) -> str:
        return "; ".join(f"{head}: {cell}" for head, cell in zip(HEAD, self.cells(), strict=True))


def result_of(load: SteadyLoad, name: str, what: str, target: str, measured: str) -> FaultResult:
    return FaultResult(
        name=name,
        what=what,
        target=target,
        writes=load.acknowledged,
        failures=load.failures,
        longest_s=load.longest_wait_s,
        measured=measured,
    )


class Acceptance:
    """The results in order, and every answer that a client got."""

    def __init__(self) -> None:
        self.results: list[FaultResult] = []
        self.placements: list[str] = []
        """Where shards and replicas were after each change."""
        self.calls: list[ClientCall] = []
        self.audit = ""
        """What the checker said; empty before it has."""
