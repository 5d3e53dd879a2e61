"""The cluster tests' part of specification/failure-results.md."""

import os
import platform
from collections.abc import Iterable
from typing import Final

from tests.cluster.acceptance import HEAD, Acceptance
from tests.support.generated_page import FAILURE_RESULTS, table, write_generated_part

_COMMAND: Final = "make cluster-test"


def write_results(acceptance: Acceptance, took_s: float) -> None:
    """Replace the cluster tests' part of the page."""
    write_generated_part(FAILURE_RESULTS, _COMMAND, list(lines_of(acceptance, took_s)))


def lines_of(acceptance: Acceptance, took_s: float) -> Iterable[str]:
    results = acceptance.results
    yield (
        f"{len(results)} changes of a cluster in {took_s / 60:.0f} minutes, "
        f"{sum(one.writes for one in results):,} writes, on {os.cpu_count()} cores "
        f"({platform.system()} {platform.machine()}) that the clients, the servers and all nodes "
        f"share. {acceptance.audit}"
    )
    yield ""
    yield from table(HEAD, [one.cells() for one in results])
    yield ""
    yield from (f"- `{one.name}`: {one.what}" for one in results)
    yield ""
    yield "Where shards and ingress replicas were, node by node:"
    yield ""
    yield from (f"- {one}" for one in acceptance.placements)
