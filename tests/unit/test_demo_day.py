"""The day of `wallet demo`: the same every time, and possible."""

import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import httpx
import pytest

from deploy.cli.demo import Played, Shop
from deploy.cli.demo_day import ACCOUNTS, Movement, Sales, steps
from deploy.local.errors import StackError


def movements() -> list[Movement]:
    return [
        movement
        for step in steps()
        for movement in (step.movements if isinstance(step, Sales) else (step,))
    ]


def test_the_day_is_the_same_every_time() -> None:
    assert steps() == steps()


def test_every_movement_has_a_name_of_its_own() -> None:
    names = Counter(movement.reference for movement in movements())
    names.update(step.reference for step in steps() if isinstance(step, Sales))

    assert [name for name, count in names.items() if count > 1] == []


def test_the_day_has_something_of_everything() -> None:
    kinds = {(movement.type, movement.outcome) for movement in movements()}

    assert {outcome for _, outcome in kinds} == {
        "completed",
        "pending",
        "complete",
        "revert",
        "refused",
    }
    assert {movement.account for movement in movements()} == {one.name for one in ACCOUNTS}


def test_money_is_there_for_all_that_is_not_refused() -> None:
    available = {account.name: Decimal() for account in ACCOUNTS}

    for one in movements():
        amount = Decimal(one.amount)
        if one.type == "credit":
            assert (amount <= available[one.account]) == (one.outcome != "refused"), one.reference
            if one.outcome not in ("refused", "revert"):
                available[one.account] -= amount
        elif one.outcome in ("completed", "complete"):
            available[one.account] += amount

    assert available["till"] == Decimal("150.00"), "only the change stays in the till"
    assert available["card-omar"] == Decimal("15.00")
    assert available["salary-ben"] == Decimal("1725.50")


def shop_of(handler: Callable[[httpx.Request], httpx.Response]) -> Shop:
    transport = httpx.MockTransport(handler)
    return Shop(httpx.Client(transport=transport, base_url="http://service.example"))


class KeyedService:
    """Answers as the service does, as far as the demo looks; refuses what the day expects."""

    def __init__(self) -> None:
        self.requests: dict[str, tuple[str, bytes]] = {}
        self.reused: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["Idempotency-Key"]
        sent = (request.url.path, request.content)
        replayed = key in self.requests
        if replayed and self.requests[key] != sent:
            self.reused.append(key)
        self.requests[key] = sent
        status = 409 if key in REFUSED else 200 if SETTLEMENT_OR_BATCH.search(sent[0]) else 201
        headers = {"Idempotency-Replayed": "true"} if replayed else {}
        return httpx.Response(status, json={"id": f"id-of-{key}"}, headers=headers)


REFUSED = {
    f"demo-{movement.reference}" for movement in movements() if movement.outcome == "refused"
}
SETTLEMENT_OR_BATCH = re.compile("/(complete|revert|batch)$")


def played_on(service: KeyedService) -> Played:
    shop = shop_of(service)
    shop.open()
    for step in steps():
        shop.play(step)
    return shop.played


def test_a_second_run_sends_the_same_requests_under_the_same_keys() -> None:
    service = KeyedService()

    first, second = played_on(service), played_on(service)

    assert first.replayed == 0
    assert first.new["wallets opened"] == len(ACCOUNTS)
    assert first.new["transfers refused"] == len(REFUSED)
    assert not second.new
    assert second.replayed == first.new.total() == len(service.requests)
    assert service.reused == []


def test_a_refusal_that_the_day_does_not_expect_ends_it() -> None:
    shop = shop_of(lambda _: httpx.Response(401, json={"code": "key_required"}))

    with pytest.raises(StackError, match=r"POST /v1/wallet got 401.*WALLET_API_KEY"):
        shop.open()


def test_a_service_that_does_not_respond_is_named() -> None:
    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(StackError, match=r"http://service.example does not respond"):
        shop_of(unreachable).open()
