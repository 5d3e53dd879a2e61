"""`wallet demo` against the running service: a day that is played once."""

from typing import Any

from deploy.cli.demo_day import ACCOUNTS
from tests.e2e.api import Api
from tests.support.running_service import RunningService


def _wallets(api: Api) -> dict[str, Any]:
    found = {}
    for account in ACCOUNTS:
        query = {"reference_id": f"demo-{account.name}", "consistency": "strong"}
        (found[account.name],) = api.get("/v1/wallet", params=query).json()["items"]
    return found


def test_the_demo_fills_the_service_and_a_second_run_changes_nothing(
    local_service: RunningService, api: Api
) -> None:
    first = local_service.wallet("demo", "--url", local_service.url)
    after_first = _wallets(api)
    second = local_service.wallet("demo")
    after_second = _wallets(api)

    assert f"{len(ACCOUNTS)} wallets opened" in first
    assert "Nothing changed" in second
    assert after_second == after_first
    balances = {name: wallet["balance"] for name, wallet in after_first.items()}
    assert balances["till"] == "150.00"
    assert balances["salary-ana"] == "1840.00"
    assert (balances["card-omar"], after_first["card-omar"]["pending_credit"]) == ("15.00", "15.00")
    for shown in (first, second):
        assert f"/v1/wallet/{after_first['bank']['id']}/transfers?limit=5" in shown
    assert "No violations found." in local_service.wallet("verify")


def test_what_the_demo_says_to_look_at_is_there(local_service: RunningService, api: Api) -> None:
    local_service.wallet("demo")
    wallets = _wallets(api)

    path = f"/v1/wallet/{wallets['card-omar']['id']}/transfers"
    (pending,) = api.get(path, params={"status": "pending"}).json()["items"]
    assert pending["metadata"] == {"note": "reserved for tomorrow"}
    listed = api.get(f"/v1/wallet/{wallets['bank']['id']}/transfers", params={"limit": 50}).json()
    statuses = [transfer["failure_reason"] for transfer in listed["items"]]
    assert statuses.count("reverted") == 2
    bank = wallets["bank"]["id"]
    events = local_service.wallet("events", "tail", "--wallet", bank, "--from", "1", "--no-follow")
    assert len(events.splitlines()) == wallets["bank"]["version"]
