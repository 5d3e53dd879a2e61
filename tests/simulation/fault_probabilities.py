"""Fault probabilities and the seeded random source."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

import msgspec

T = TypeVar("T")


class FaultProbabilities(msgspec.Struct, kw_only=True):
    """Probabilities of faults, per call. All zero: nothing fails. The nemesis changes them."""

    fail_before: float = 0.0
    """The request is not delivered, and the caller gets an error that says so."""
    lose_request: float = 0.0
    """The request is lost; for the caller the outcome is unknown."""
    lose_answer: float = 0.0
    """Applied, but the response is lost."""
    apply_late: float = 0.0
    """The caller times out; the request is applied afterwards."""
    conflict: float = 0.0
    """Refused for a transient reason: a serialization failure, a deadlock."""
    refuse: float = 0.0
    """The server responds with an error."""
    hold: float = 0.0
    """A commit waits, with everything locked: for a disk, or for a synchronous standby."""
    latency_s: float = 0.001

    def calm(self) -> None:
        """No more faults."""
        self.fail_before = self.lose_request = self.lose_answer = 0.0
        self.apply_late = self.conflict = self.refuse = self.hold = 0.0


class SeededRandom:
    """A random source for one purpose, so that purposes do not affect each other."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)

    def happens(self, probability: float) -> bool:
        return probability > 0.0 and self._random.random() < probability

    def delay_s(self, usual_s: float) -> float:
        """Around ``usual_s``; one in fifty takes much longer."""
        delay_s = usual_s * (0.5 + self._random.random())
        if self._random.random() < 0.02:
            delay_s *= 1 + 50 * self._random.random()
        return delay_s

    def between(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def count(self, low: int, high: int) -> int:
        """From ``low`` to ``high``, both included."""
        return self._random.randint(low, high)

    def choose(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def identifier(self) -> str:
        """A random id in UUID form."""
        digits = f"{self._random.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
