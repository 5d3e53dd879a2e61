"""The journal, and wallets as they were, over HTTP."""

import asyncio
from typing import Any

import nats
import pytest

from tests.e2e.api import Api, eventually
from tests.e2e.problems import assert_problem
from tests.support.running_service import RunningService
from wallet.event_codec import SUBJECT_ROOT


@pytest.fixture(scope="module")
def history(api: Api) -> tuple[str, list[Any]]:
    """A wallet, and the responses to its creation and each write."""
    made = api.create({"metadata": {"channel": "web"}, "overdraft_limit": "5.00"}).json()
    wallet = made["id"]
    written = [made, api.debit(wallet, {"amount": "10.00", "status": "completed"}).json()]
    held = api.credit(wallet, {"amount": "4.00", "metadata": {"a": "b"}}).json()
    written += [held, api.settle(wallet, held["id"], "complete").json()]
    written.append(api.http.patch(f"/v1/wallet/{wallet}", json={"metadata": {"a": "1"}}).json())
    written.append(api.post(f"/v1/wallet/{wallet}/freeze", {"reason": "stolen"}).json())
    return wallet, written


def test_the_journal_is_what_clients_and_consumers_got(
    api: Api, service: RunningService, history: tuple[str, list[Any]]
) -> None:
    wallet, written = history
    answer = api.get(f"/v1/wallet/{wallet}/events")
    items = answer.json()["items"]
    assert [item["event"]["data"] for item in items] == written
    assert answer.headers["cache-control"] == "no-cache"
    if not service.nats_url:
        pytest.skip("the stream of this service is out of reach")

    found: list[bytes] = []

    def all_arrived() -> bool:
        found[:] = asyncio.run(_published(service.nats_url, wallet))
        return len(found) == len(items)

    eventually(all_arrived)
    assert all(message in answer.content for message in found)


async def _published(url: str, wallet: str) -> list[bytes]:
    client = await nats.connect(url)
    try:
        subscription = await client.jetstream().subscribe(
            f"{SUBJECT_ROOT}.*.{wallet}.>", ordered_consumer=True
        )
        found = []
        while True:
            try:
                found.append((await subscription.next_msg(timeout=0.5)).data)
            except nats.errors.TimeoutError:
                return found
    finally:
        await client.close()


def test_a_wallet_is_read_as_it_was(api: Api, history: tuple[str, list[Any]]) -> None:
    wallet, written = history
    for version, response in enumerate(written, 1):
        then = api.wallet(wallet, version=version)
        after = response.get("wallet", response)
        assert then.headers["etag"] == f'"{version}"'
        assert {name: then.json()[name] for name in after if name != "reason"} == {
            name: value for name, value in after.items() if name != "reason"
        }
        at = api.wallet(wallet, at=then.json()["updated_at"])
        assert at.content == then.content


def test_before_its_creation_there_was_no_wallet(api: Api) -> None:
    wallet = api.new_wallet()
    assert_problem(api.wallet(wallet, at="2020-01-01T00:00:00Z"), 404, "wallet_not_found")
    assert_problem(api.wallet(wallet, version=2), 409, "version_not_reached")


def test_a_journal_can_be_followed(api: Api) -> None:
    wallet = api.new_wallet()
    known = 0
    for number in range(1, 6):
        page = api.get(f"/v1/wallet/{wallet}/events", params={"after_version": known}).json()
        assert [item["wallet"]["version"] for item in page["items"]] == [number]
        known = number
        api.debit(wallet, {"amount": "1"})
