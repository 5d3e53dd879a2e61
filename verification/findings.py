"""What a check found: the first of each breach in a wallet is told, the others are counted."""

from collections import Counter
from collections.abc import Callable, Iterable

from verification.violations import Breach, Violation


class Findings:
    """Tells violations as they come and keeps numbers, not violations."""

    def __init__(self, tell: Callable[[Violation], None]) -> None:
        self._tell = tell
        self._told: set[tuple[str, Breach]] = set()
        self.counts: Counter[Breach] = Counter()

    def add(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self.counts[violation.breach] += 1
            place = (violation.wallet_id, violation.breach)
            if place not in self._told:
                self._told.add(place)
                self._tell(violation)

    def forget(self) -> None:
        """The wallets that were told of will not come again."""
        self._told.clear()

    @property
    def total(self) -> int:
        return self.counts.total()
