"""How Hypothesis runs: the same examples every time, unless the explore profile is set.

`pytest tests/property --hypothesis-profile=explore` tries ten times as many new ones.
"""

import pytest
from hypothesis import HealthCheck, settings

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.filter_too_much]

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    stateful_step_count=40,
    suppress_health_check=_SLOW_IS_FINE,
    print_blob=True,
)
settings.register_profile(
    "explore",
    derandomize=False,
    deadline=None,
    max_examples=1_500,
    stateful_step_count=60,
    suppress_health_check=_SLOW_IS_FINE,
    print_blob=True,
)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile", default=None):
        settings.load_profile("repeatable")
