"""Token bucket that allows debt: a batch may exceed the burst and delays the next request."""


class TokenBucket:
    """Fills at ``rate_per_s`` up to ``burst``. Pure: the caller passes the time.

    A request needs at least one token and may take more than there are: the balance becomes
    negative, and the next request waits until there is a token again. So a batch larger than
    ``burst`` is possible. In any ``t`` seconds the bucket allows at most
    ``burst + rate_per_s * t`` plus the size of the last batch.
    """

    __slots__ = ("_at_s", "_tokens", "burst", "rate_per_s")

    def __init__(self, *, rate_per_s: float, burst: float, now_s: float) -> None:
        assert rate_per_s > 0, "a rate of 0 needs no bucket"
        assert burst >= 1, "a burst below 1 allows no request"
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
        """Take ``count`` more tokens for an accepted request."""
        self._tokens -= count
