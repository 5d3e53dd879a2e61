"""The violations of a check: the first of each kind in a wallet is reported, all are counted."""

from collections import Counter
from collections.abc import Callable, Iterable

from verification.violations import Violation, ViolationKind


class Findings:
    """Reports violations as they come; keeps counts, not violations."""

    def __init__(self, report: Callable[[Violation], None]) -> None:
        self._report = report
        self._reported: set[tuple[str, ViolationKind]] = set()
        self.counts: Counter[ViolationKind] = Counter()

    def add(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self.counts[violation.kind] += 1
            wallet_and_kind = (violation.wallet_id, violation.kind)
            if wallet_and_kind not in self._reported:
                self._reported.add(wallet_and_kind)
                self._report(violation)

    def start_next_range(self) -> None:
        """Reset deduplication: later ranges contain other wallets."""
        self._reported.clear()

    @property
    def total(self) -> int:
        return self.counts.total()
