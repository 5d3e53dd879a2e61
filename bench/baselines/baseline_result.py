"""The result of a baseline."""

from collections.abc import Mapping, Sequence

import msgspec

from bench.audit import AuditFailed


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """One way of running a baseline, audited."""

    concurrency: int
    requests_per_s: float
    transfers_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    errors: Mapping[str, int] = {}
    variant: str = ""
    """How it was run, if there are several ways."""


def check(baseline: str, findings: Sequence[str]) -> None:
    """A baseline that lost data does not count.

    Raises:
        AuditFailed: there are findings.
    """
    if findings:
        raise AuditFailed(f"baseline {baseline}", findings)


def best(baselines: Sequence[Baseline]) -> Baseline:
    """The baseline with the most transfers/s."""
    return max(baselines, key=lambda one: one.transfers_per_s)
