"""Reads over HTTP: read-your-writes, ETags, stable pages."""

import time
from typing import Any

import httpx
import pytest

from tests.e2e.api import Api, eventually, new_id
from tests.e2e.problems import assert_problem


def test_a_client_reads_its_own_write_at_once(api: Api) -> None:
    wallet = api.new_wallet()
    for number in range(1, 31):
        written = api.debit(wallet, {"amount": "1", "status": "completed"}).json()["wallet"]

        read = api.wallet(wallet, min_version=written["version"])

        assert read.status_code == 200
        assert read.json()["version"] == written["version"] == number + 1
        assert read.json()["balance"] == written["balance"] == f"{number}.00"


def test_every_kind_of_write_returns_the_version_to_read_it_by(api: Api) -> None:
    wallet = api.new_wallet("10")
    base = f"/v1/wallet/{wallet}/transfers"
    held = [api.credit(wallet, {"amount": "1"}).json()["id"] for _ in range(2)]

    for path, body in (
        (f"{base}/debit", {"amount": "1"}),
        (f"{base}/credit", {"amount": "1"}),
        (f"{base}/{held[0]}/complete", None),
        (f"{base}/{held[1]}/revert", None),
        (f"{base}/batch", {"items": [{"type": "debit", "amount": "1"}] * 3}),
    ):
        written = api.post(path, body).json()["wallet"]
        read = api.wallet(wallet, min_version=written["version"]).json()
        assert {name: read[name] for name in written} == written


def test_a_strong_read_is_never_behind_an_answered_write(api: Api) -> None:
    wallet = api.new_wallet()
    for _ in range(10):
        written = api.debit(wallet, {"amount": "1"}).json()["wallet"]

        assert api.wallet(wallet, consistency="strong").json()["version"] == written["version"]


@pytest.mark.parametrize("ask", ["min_version", "strong"])
def test_who_lost_an_answer_and_had_no_key_finds_the_transfer_in_the_list(
    api: Api, ask: str
) -> None:
    wallet = api.new_wallet()
    for _ in range(15):
        made = api.debit(wallet, {"amount": "1"}).json()
        fresh: dict[str, Any] = {"consistency": "strong"}
        if ask == "min_version":
            fresh = {"min_version": made["wallet"]["version"]}

        page = api.transfers(wallet, limit=1, **fresh).json()

        assert [one["id"] for one in page["items"]] == [made["id"]]
        assert page["wallet_version"] == made["wallet"]["version"]


def test_a_transfer_is_read_as_it_was_just_settled(api: Api) -> None:
    wallet = api.new_wallet()
    for _ in range(15):
        made = api.debit(wallet, {"amount": "1"}).json()
        done = api.settle(wallet, made["id"], "complete").json()
        version = done.pop("wallet")["version"]
        path = f"/v1/wallet/{wallet}/transfers/{made['id']}"

        assert api.get(path, params={"min_version": version}).json() == done
        assert api.get(path, params={"consistency": "strong"}).json() == done


def test_a_client_is_never_sent_an_older_wallet_than_it_has(api: Api) -> None:
    wallet = api.new_wallet()
    for _ in range(15):
        version = api.debit(wallet, {"amount": "1"}).json()["wallet"]["version"]

        again = api.get(f"/v1/wallet/{wallet}", headers={"If-None-Match": f'"{version}"'})

        assert again.status_code == 304
        assert again.headers["cache-control"] == "no-cache"


def test_head_is_a_read_without_its_body(api: Api) -> None:
    wallet = api.new_wallet()
    for path in (f"/v1/wallet/{wallet}", f"/v1/wallet/{wallet}/transfers", "/healthz", "/docs"):
        answer = api.http.head(path)

        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 0


def test_a_new_wallet_and_its_transfers_are_read_at_once(api: Api) -> None:
    made = api.create({"metadata": {"a": "b"}}).json()

    assert api.wallet(made["id"]).json() == made
    written = api.debit(made["id"], {"amount": "1"}).json()
    written.pop("wallet")
    assert api.transfer(made["id"], written["id"]).json() == written
    assert api.transfers(made["id"]).status_code == 200


def test_a_version_that_was_never_reached_is_refused(api: Api) -> None:
    wallet = api.new_wallet()

    problem = assert_problem(api.wallet(wallet, min_version=2), 409, "version_not_reached")

    assert "version 1" in problem["detail"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("min_version=-1", "min_version"),
        ("min_version=x", "min_version"),
        ("min_version=1.5", "min_version"),
        ("min_version=9223372036854775808", "min_version"),
        ("min_version=", "min_version"),
        ("consistency=weak", "consistency"),
        ("unknown=1", "unknown"),
    ],
)
def test_a_wallets_query_is_validated(api: Api, query: str, name: str) -> None:
    answer = api.get(f"/v1/wallet/{api.new_wallet()}?{query}")

    assert_problem(answer, 422, "validation_error", pointer=f"#query/{name}")


def test_the_etag_is_the_version_and_saves_sending_the_wallet_again(api: Api) -> None:
    wallet = api.new_wallet()
    first = api.wallet(wallet, consistency="strong")
    tag = first.headers["etag"]

    def ask(if_none_match: str) -> httpx.Response:
        query = {"consistency": "strong"}
        headers = {"If-None-Match": if_none_match}
        return api.get(f"/v1/wallet/{wallet}", params=query, headers=headers)

    assert tag == '"1"'
    for matching in (tag, f'W/{tag}, "x"', f'"x",{tag}', "*"):
        unchanged = ask(matching)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
    assert ask('"2"').status_code == 200

    api.debit(wallet, {"amount": "1"})

    changed = ask(tag)
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')


def _drained(api: Api, wallet: str) -> None:
    """Wait until all events of the wallet are projected."""
    version = api.state(wallet)["version"]
    eventually(lambda: bool(api.wallet(wallet).json()["version"] == version))


@pytest.fixture(scope="module")
def ledger(api: Api) -> tuple[str, list[Any]]:
    """A wallet with 12 transfers of every kind, and they as read one by one, newest first."""
    wallet = api.new_wallet()
    ids = []
    for number in range(1, 13):
        kind = "debit" if number % 3 else "credit"
        status = "completed" if number % 2 else "pending"
        made = api.post(
            f"/v1/wallet/{wallet}/transfers/{kind}", {"amount": str(number), "status": status}
        )
        assert made.status_code == 201 or kind == "credit", made.text
        if made.status_code == 201:
            ids.append(made.json()["id"])
    api.settle(wallet, ids[1], "revert")
    api.settle(wallet, ids[3], "complete")
    _drained(api, wallet)
    return wallet, [api.transfer(wallet, one).json() for one in reversed(ids)]


def test_transfers_are_listed_newest_first(api: Api, ledger: tuple[str, list[Any]]) -> None:
    wallet, expected = ledger

    page = api.transfers(wallet).json()

    version = api.state(wallet)["version"]
    assert page == {"items": expected, "next_cursor": None, "wallet_version": version}


@pytest.mark.parametrize("limit", [1, 5, 12, 200])
def test_pages_together_are_the_list(api: Api, ledger: tuple[str, list[Any]], limit: int) -> None:
    wallet, expected = ledger

    pages = list(_pages(api, wallet, limit=limit))

    assert [transfer for page in pages for transfer in page] == expected
    assert all(len(page) == limit for page in pages[:-1])
    assert 0 < len(pages[-1]) <= limit


def _pages(api: Api, wallet: str, **query: Any) -> Any:
    cursor: str | None = ""
    while cursor is not None:
        asked = query if not cursor else {**query, "cursor": cursor}
        page = api.transfers(wallet, **asked)
        assert page.status_code == 200, page.text
        yield page.json()["items"]
        cursor = page.json()["next_cursor"]


@pytest.mark.parametrize("status", [None, "pending", "completed", "failed"])
@pytest.mark.parametrize("kind", [None, "debit", "credit"])
def test_transfers_are_filtered_on_every_page(
    api: Api, ledger: tuple[str, list[Any]], kind: str | None, status: str | None
) -> None:
    wallet, transfers = ledger
    asked = {
        name: value for name, value in (("type", kind), ("status", status)) if value is not None
    }
    expected = [one for one in transfers if asked.items() <= one.items()]

    found = [one for page in _pages(api, wallet, limit=2, **asked) for one in page]

    assert found == expected


def test_pages_neither_skip_nor_repeat_while_new_transfers_arrive(api: Api) -> None:
    wallet = api.new_wallet()
    before = [api.debit(wallet, {"amount": "1"}).json()["id"] for _ in range(9)]
    _drained(api, wallet)
    seen = []

    for page in _pages(api, wallet, limit=2):
        seen += [transfer["id"] for transfer in page]
        api.debit(wallet, {"amount": "2"})
        api.debit(wallet, {"amount": "3"})
        _drained(api, wallet)

    assert seen == before[::-1]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("status=done", "status"),
        ("type=Debit", "type"),
        ("cursor=!!", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("cursor=", "cursor"),
        (f"cursor={'A' * 65}", "cursor"),
        ("cursor=%C3%BC", "cursor"),
        ("page=2", "page"),
    ],
)
def test_a_lists_query_is_validated(
    api: Api, ledger: tuple[str, list[Any]], query: str, name: str
) -> None:
    answer = api.get(f"/v1/wallet/{ledger[0]}/transfers?{query}")

    assert_problem(answer, 422, "validation_error", pointer=f"#query/{name}")


def test_a_wallet_without_transfers_has_an_empty_list(api: Api) -> None:
    page = api.transfers(api.new_wallet()).json()

    assert page == {"items": [], "next_cursor": None, "wallet_version": 1}


def test_the_projection_follows_within_moments(api: Api) -> None:
    wallet = api.new_wallet()
    _drained(api, wallet)
    api.debit(wallet, {"amount": "1"})
    started = time.monotonic()

    eventually(lambda: bool(api.wallet(wallet).json()["version"] == 2), timeout_s=20)

    assert time.monotonic() - started < 20


def test_a_transfer_has_no_other_query(api: Api) -> None:
    answer = api.get(f"/v1/wallet/{new_id()}/transfers/{new_id()}?x=1")

    assert_problem(answer, 422, "validation_error", pointer="#query/x")
