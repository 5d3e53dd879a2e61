"""What a check found: the first of each breach in a wallet is told, the others are counted."""

from collections import Counter
from collections.abc import Callable, Iterable

from verification.violations import Violation, ViolationKind


class Findings:
    """Tells violations as they come and keeps numbers, not violations."""

    def __init__(self, tell: Callable[[Violation], None]) -> None:
        self._tell = tell
        self._reported: set[tuple[str, ViolationKind]] = set()
        self.counts: Counter[ViolationKind] = Counter()

    def add(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self.counts[violation.kind] += 1
            place = (violation.wallet_id, violation.kind)
            if place not in self._reported:
                self._reported.add(place)
                self._tell(violation)

    def start_next_range(self) -> None:
        """The wallets that were told of will not come again."""
        self._reported.clear()

    @property
    def total(self) -> int:
        return self.counts.total()
