"""A bound on how often: so many a second, and some at once after a pause."""


class TokenBucket:
    """Fills at ``rate_per_s`` up to ``burst``; pure, the clock is handed in.

    Whoever finds at least one token may take as many as it needs: the bucket then owes them, and
    lets nobody through until they have come. So a batch larger than ``burst`` is possible, and
    costs the pause after it. In any ``t`` seconds it lets through at most
    ``burst + rate_per_s * t`` plus the size of the last batch.
    """

    __slots__ = ("_at_s", "_tokens", "burst", "rate_per_s")

    def __init__(self, *, rate_per_s: float, burst: float, now_s: float) -> None:
        assert rate_per_s > 0, "no limit is no bucket"
        assert burst >= 1, "nothing would ever come through"
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, count: int, now_s: float) -> float:
        """Take ``count`` tokens; returns 0, or how many seconds to wait before trying again."""
        gained = max(0.0, now_s - self._at_s) * self.rate_per_s
        self._tokens = min(self.burst, self._tokens + gained)
        self._at_s = now_s
        if self._tokens < 1:
            return (1 - self._tokens) / self.rate_per_s
        self._tokens -= count
        return 0.0

    def charge(self, count: int) -> None:
        """Take ``count`` tokens more for what was let through already."""
        self._tokens -= count
