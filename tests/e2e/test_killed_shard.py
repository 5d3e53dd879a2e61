"""A shard dies while requests wait: clients see a delay, but no errors and no duplicates."""

import pytest

from tests.e2e.api import Api, eventually
from tests.support.running_service import RunningService
from tests.support.steady_load import assert_nothing_lost, steady_load

WALLETS = 16  # spread over every shard
REQUESTS_MIN = 300
GOES_ON_S = 60.0
PAUSE_MAX_S = 3.0
"""The promised maximum. Starting a successor takes longer on a busy machine, so calls fail over to
the next shard."""


def test_a_killed_shard_costs_its_clients_a_pause_and_nobody_a_cent(
    service: RunningService, api: Api
) -> None:
    if service.state_dir is None:
        pytest.skip("the processes of this service are not accessible")
    with steady_load(service.url, clients=WALLETS, warm_up=REQUESTS_MIN, pause_s=0.0) as load:
        victim = service.processes("ray::ShardActor")[0]
        victim.kill()
        victim.wait(10)
        load.wait_for_each(2, timeout_s=GOES_ON_S)

    assert (load.failures, load.replayed) == ({}, 0)
    assert_nothing_lost(load)
    assert load.longest_wait_s < PAUSE_MAX_S
    for wallet in load.wallets:
        assert api.state(wallet)["version"] == load.acknowledged_in(wallet) + 1
    eventually(lambda: api.get("/readyz").status_code == 200, timeout_s=60)
