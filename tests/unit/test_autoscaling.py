"""The number of replicas follows their CPU usage."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

with warnings.catch_warnings():  # of Ray's own code, when it is imported
    warnings.simplefilter("ignore")
    from serve_app.autoscaling import CPU_METRIC, CpuUsage, CpuUtilizationPolicy


def context(*used: float, target_num_replicas: int = 1) -> Any:
    """The context that Serve passes to a policy: the CPU usage of each replica."""
    measured = {CPU_METRIC: dict(enumerate(used))} if used else {}
    return SimpleNamespace(aggregated_metrics=measured, target_num_replicas=target_num_replicas)


@pytest.mark.parametrize(
    ("used", "wanted"),
    [((0.6,), 1.0), ((0.9, 0.9), 3.0), ((0.1, 0.1, 0.1), 0.5), ((1.0, 0.2), 2.0)],
)
def test_there_are_as_many_as_bring_each_to_the_target(
    used: tuple[float, ...], wanted: float
) -> None:
    replicas, _ = CpuUtilizationPolicy(target=0.6)(context(*used))

    assert replicas == pytest.approx(wanted)


def test_before_anything_is_measured_nothing_changes() -> None:
    assert CpuUtilizationPolicy()(context(target_num_replicas=5))[0] == 5


@pytest.mark.parametrize("target", [0.0, -0.1, 1.1])
def test_a_target_that_no_replica_can_reach_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target must be"):
        CpuUtilizationPolicy(target=target)


def test_a_busy_process_uses_more_of_a_core_than_an_idle_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor, wall = iter([10.0, 10.2, 11.0]), iter([100.0, 101.0, 102.0])
    monkeypatch.setattr("time.process_time", lambda: next(processor))
    monkeypatch.setattr("time.monotonic", lambda: next(wall))
    use = CpuUsage()

    assert use.share() == pytest.approx(0.2)
    assert use.share() == pytest.approx(0.8)
