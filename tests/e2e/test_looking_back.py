"""The journal, and wallets as they were, over HTTP."""

import asyncio
from typing import Any

import nats
import pytest

from tests.e2e.api import Api, eventually, new_id
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


# -- lists -----------------------------------------------------------------------------------------


def test_a_wallet_is_found_by_everything_that_is_known_of_it(api: Api) -> None:
    channel, reference = new_id(), f"lists-{new_id()}"
    fields = {"reference_id": reference, "currency": "JPY", "metadata": {"channel": channel}}
    wallet = api.create(fields).json()
    other = api.create({"metadata": {"channel": channel}}).json()
    api.post(f"/v1/wallet/{other['id']}/close")
    for query, expected in (
        ({"reference_id_prefix": reference[:-3]}, [wallet]),
        ({"metadata.channel": channel, "currency": "JPY"}, [wallet]),
        ({"metadata.channel": channel, "status": "closed"}, [other]),
        ({"metadata.channel": channel}, [other, wallet]),
        ({"metadata.channel": channel, "created_from": other["created_at"]}, [other]),
        ({"metadata.channel": channel, "created_before": other["created_at"]}, [wallet]),
    ):
        ids = [one["id"] for one in expected]
        assert _ids_of_wallets(api, consistency="strong", **query) == ids
        # Each wallet is projected by itself: that one is says nothing of the other.
        _await_projected(api, query, ids)


def _await_projected(api: Api, query: dict[str, str], ids: list[str]) -> None:
    eventually(lambda: _ids_of_wallets(api, consistency="eventual", **query) == ids)


def _ids_of_wallets(api: Api, **query: str) -> list[str]:
    return [one["id"] for one in _all(api, "/v1/wallet", limit=1, **query)]


def _all(api: Api, path: str, **query: Any) -> list[Any]:
    found: list[Any] = []
    while query.get("cursor", "") is not None:
        page = api.get(path, params=query)
        assert page.status_code == 200, page.text
        found += page.json()["items"]
        query["cursor"] = page.json()["next_cursor"]
    return found


def test_transfers_are_found_by_everything_that_is_known_of_them(api: Api) -> None:
    wallet = api.new_wallet("100.00")
    made = [
        api.debit(
            wallet, {"amount": f"{number}.50", "reference_id": f"r{number}"} | metadata
        ).json()
        for number, metadata in ((1, {}), (2, {"metadata": {"a": "b c"}}), (3, {}))
    ]
    version = made[-1]["wallet"]["version"]
    for query, numbers in (
        ({"reference_id": "r2"}, [2]),
        ({"amount_min": "1.50", "amount_max": "2.5"}, [2, 1]),
        ({"amount_min": "3.50", "amount_max": "3.50"}, [3]),
        ({"metadata.a": "b c"}, [2]),
        ({"created_from": made[1]["created_at"]}, [3, 2]),
        ({"created_before": made[0]["created_at"], "type": "debit", "status": "completed"}, [0]),
        ({"status": "pending", "type": "debit"}, [3, 2, 1]),
    ):
        for fresh in ({"min_version": version}, {"consistency": "strong"}):
            found = _all(api, f"/v1/wallet/{wallet}/transfers", limit=2, **query, **fresh)
            references = [f"r{number}" if number else None for number in numbers]
            assert [one["reference_id"] for one in found] == references


# -- statements ------------------------------------------------------------------------------------


def test_a_statement_is_what_happened(api: Api, history: tuple[str, list[Any]]) -> None:
    wallet, written = history
    path = f"/v1/wallet/{wallet}/statement"
    found = api.get(path).json()
    assert [entry["event"] for entry in found["entries"]] == [
        "transfer.completed",
        "transfer.pending",
        "transfer.completed",
    ]
    assert [entry["balance_change"] for entry in found["entries"]] == ["10.00", "-4.00", "0.00"]
    assert (found["opening"]["balance"], found["closing"]["balance"]) == ("0.00", "6.00")
    assert found["closing"]["version"] == len(written)
    csv = api.get(path, headers={"Accept": "text/csv"})
    assert csv.headers["content-type"].startswith("text/csv")
    rows = csv.text.split("\r\n")
    kinds = [row.partition(",")[0] for row in rows]
    assert kinds == ["row", "opening", "entry", "entry", "entry", "closing", ""]
    head = api.http.head(path, headers={"Accept": "text/csv"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == csv.headers["content-type"]


def test_a_statement_of_thousands_of_entries_arrives_whole(api: Api) -> None:
    wallet = api.new_wallet()
    item = {"type": "debit", "amount": "0.01"}
    for _ in range(3):
        assert api.batch(wallet, {"items": [item] * 1_000}).status_code == 200
    found = api.get(f"/v1/wallet/{wallet}/statement").json()
    assert (found["entry_count"], len(found["entries"])) == (3_000, 3_000)
    versions = [entry["version"] for entry in found["entries"]]
    assert versions == list(range(2, 3_002))


def test_a_statement_of_another_type_is_not_acceptable(api: Api) -> None:
    path = f"/v1/wallet/{api.new_wallet()}/statement"
    assert_problem(api.get(path, headers={"Accept": "application/pdf"}), 406, "not_acceptable")
