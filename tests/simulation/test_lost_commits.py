"""Runs whose database loses commits: exactly what it lost is accounted for."""

from functools import cache
from itertools import count, islice

from tests.simulation.run_config import config_for_seed
from tests.simulation.scenario import Outcome, run_seed
from verification.checker import check
from verification.violations import ViolationKind

_RUNS = 12


@cache
def _outcomes() -> tuple[Outcome, ...]:
    """Seeds whose database loses commits, apart from those of other tests."""
    seeds = (seed for seed in count(5_000) if config_for_seed(seed).failovers)
    return tuple(run_seed(seed) for seed in islice(seeds, _RUNS))


def test_runs_that_lose_commits_break_no_rule() -> None:
    for outcome in _outcomes():
        found = [*map(str, outcome.violations), *outcome.failures]
        assert not found, f"make simulate SEED={outcome.seed}: {found[:3]}"


def test_failovers_lose_events_keys_and_answers() -> None:
    losses = [loss for outcome in _outcomes() for loss in outcome.losses]
    assert sum(bool(loss.events) for loss in losses) > _RUNS
    assert sum(len(loss.keys) for loss in losses) > _RUNS
    faults = {fault for outcome in _outcomes() for fault in outcome.faults_done}
    assert faults >= {"_lose_commits", "_lose_commits_unnoticed"}


def test_what_was_lost_would_be_a_violation_otherwise() -> None:
    kinds = {one.kind for outcome in _outcomes() for one in check(outcome.evidence)}
    assert kinds >= {
        ViolationKind.ACKNOWLEDGED_WRITE_MISSING,
        ViolationKind.READ_DIFFERS,
        ViolationKind.STREAM_EVENT_DIFFERS,
    }


def test_only_a_part_of_the_seeds_loses_commits() -> None:
    losing = [seed for seed in range(400) if config_for_seed(seed).failovers]
    assert 20 < len(losing) < 80
    assert not run_seed(next(seed for seed in count() if seed not in losing)).losses
