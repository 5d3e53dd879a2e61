"""The checker can fail: each broken variant of the service is caught, by name."""

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenario import run_seed

_SEEDS_MAX = 2_000


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_caught_by_name(name: str) -> None:
    mutation = MUTATIONS[name]
    with mutation.applied() as make:
        for seed in filter(mutation.may_show, range(_SEEDS_MAX)):
            outcome = run_seed(seed, make=make)
            if any(violation.kind is mutation.breach for violation in outcome.violations):
                return
    pytest.fail(f"{_SEEDS_MAX} seeds without {mutation.breach}")
