"""Every process dies at once, as in a power cut: what was answered with 201 is there afterwards."""

import asyncio
from contextlib import suppress

import psutil
import pytest

from tests.e2e.api import Api, eventually
from tests.support.checker import run_checker
from tests.support.running_service import RunningService
from tests.support.steady_load import SteadyLoad, steady_load

CLIENTS = 64
ACKNOWLEDGED_MIN = 4_000
KILLED_WITHIN_S = 10.0


@pytest.mark.timeout(400)
def test_what_was_acknowledged_survives_the_kill_of_every_process(
    service: RunningService, api: Api
) -> None:
    if service.state_dir is None:
        pytest.skip("the processes of this service are not accessible")
    with steady_load(
        service.url, clients=CLIENTS, warm_up=ACKNOWLEDGED_MIN, pause_s=0.0, warm_up_s=120.0
    ) as load:
        _kill_everything(service)
        acknowledged = load.acknowledged
        service.start()
    assert acknowledged >= ACKNOWLEDGED_MIN
    eventually(lambda: api.get("/readyz").status_code == 200, timeout_s=60)
    _assert_that_each_balance_is_what_was_acknowledged(load, api)
    report = asyncio.run(run_checker(service.database_url, service.nats_url, load.calls))
    assert report.violations == []


def _kill_everything(service: RunningService) -> None:
    """SIGKILL, until no process of the stack is left: some start others when these end."""

    def is_dead() -> bool:
        for process in (victims := service.processes("")):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return not victims

    eventually(is_dead, timeout_s=KILLED_WITHIN_S)


def _assert_that_each_balance_is_what_was_acknowledged(load: SteadyLoad, api: Api) -> None:
    """Except for a client's last request, whose outcome it may never have learnt."""
    beyond = 0
    for wallet in load.wallets:
        balance = int(api.state(wallet)["balance"].removesuffix(".00"))
        assert balance >= load.acknowledged_in(wallet), "an acknowledged transfer is lost"
        beyond += balance - load.acknowledged_in(wallet)
    assert beyond <= load.given_up
