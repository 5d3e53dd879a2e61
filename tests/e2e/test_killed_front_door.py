"""HAProxy is killed: a standby serves immediately, until Serve starts the next one."""

import httpx
import psutil
import pytest

from tests.e2e.api import Api, eventually
from tests.support.process_facts import listening_ports, title_of
from tests.support.running_service import RunningService

MISSED_MAX_S = 5.0
"""Serve alone needs 9 s on an idle machine; a standby the start of a process."""
REPLACED_MAX_S = 60.0


def serving(service: RunningService) -> list[psutil.Process]:
    """The processes that listen on the front port."""
    port = int(service.url.rpartition(":")[2])
    return [
        process
        for process in service.processes("")
        if "haproxy" in title_of(process).partition(" ")[0] and port in listening_ports(process)
    ]


def is_a_standby(process: psutil.Process) -> bool:
    return "standby.conf" in title_of(process)


def test_a_killed_haproxy_is_missed_for_a_moment_and_replaced_unnoticed(
    service: RunningService, api: Api
) -> None:
    if service.state_dir is None:
        pytest.skip("the processes of this service are not accessible")
    wallet = api.new_wallet()
    (killed,) = serving(service)
    assert not is_a_standby(killed)

    killed.kill()

    def answers() -> bool:
        try:
            return httpx.get(f"{service.url}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    eventually(answers, timeout_s=MISSED_MAX_S)
    assert api.debit(wallet, {"amount": "1"}).status_code == 201

    def is_replaced() -> bool:
        eventually(answers, timeout_s=1.0)  # the port changes hands within milliseconds
        return not any(is_a_standby(one) for one in serving(service)) and bool(serving(service))

    eventually(is_replaced, timeout_s=REPLACED_MAX_S)
    assert api.debit(wallet, {"amount": "1"}).status_code == 201
