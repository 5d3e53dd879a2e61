"""A replica that has been stopped fails Serve's health checks."""

import pytest

from serve_app.deployment import Ingress, Projections
from serve_app.stoppable_replica import StoppableReplica


async def test_a_replica_is_healthy_until_it_is_stopped() -> None:
    replica, other = StoppableReplica(), StoppableReplica()
    await replica.check_health()

    replica.__del__()

    with pytest.raises(RuntimeError, match="stopped"):
        await replica.check_health()
    await other.check_health()


@pytest.mark.parametrize("part", [Ingress, Projections])
def test_every_replica_of_ours_is_stoppable(part: type) -> None:
    assert issubclass(part, StoppableReplica)
