"""`wallet demo`: plays `deploy.cli.demo_day` against a running service, over HTTP.

Every request has an idempotency key that names its movement. A second run sends the same requests,
gets the same responses and moves nothing.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import httpx
from rich.console import Console
from rich.table import Table

from deploy.cli import demo_day
from deploy.cli.demo_day import ACCOUNTS, Movement, Sales, Step
from deploy.local.errors import StackError

Json = dict[str, Any]

_PREFIX: Final = "demo-"
"""Of reference_ids and idempotency keys."""

_TIMEOUT_S: Final = 30.0


@dataclass(slots=True, kw_only=True)
class Played:
    """What became of the day."""

    wallets: dict[str, str] = field(default_factory=dict)
    """Wallet ids by account."""
    new: Counter[str] = field(default_factory=Counter)
    """Requests that were decided now, by what they did."""
    replayed: int = 0
    """Requests that an earlier run had sent."""


class Shop:
    """Sends the requests of the day. ``client`` has the service's address and the API key."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.played = Played()

    def open(self) -> None:
        """Open the wallets.

        Raises:
            StackError: the service refused, or did not respond.
        """
        for account in ACCOUNTS:
            name = f"{_PREFIX}{account.name}"
            body = {"reference_id": name, "metadata": {"what": account.what}}
            opened = self._post("/v1/wallet", name, body, (201,), "wallets opened")
            self.played.wallets[account.name] = opened["id"]

    def play(self, step: Step) -> None:
        """Send one step; StackError as in `open`."""
        match step:
            case Sales():
                self._sell(step)
            case Movement():
                self._move(step)
            case _:
                assert_never(step)

    def wallet(self, account: str) -> Json:
        """The wallet as it is now."""
        path = f"/v1/wallet/{self.played.wallets[account]}?consistency=strong"
        return _accepted(self._send("GET", path), (200,))

    def _sell(self, sales: Sales) -> None:
        items = [
            {
                "type": sale.type,
                "amount": sale.amount,
                "status": "completed",
                "reference_id": f"{_PREFIX}{sale.reference}",
            }
            for sale in sales.movements
        ]
        key = f"{_PREFIX}{sales.reference}"
        self._post(
            f"{self._transfers(sales.account)}/batch", key, {"items": items}, (200,), "batches"
        )

    def _move(self, movement: Movement) -> None:
        transfers = self._transfers(movement.account)
        key = f"{_PREFIX}{movement.reference}"
        is_done = movement.outcome in ("completed", "refused")
        body: Json = {
            "amount": movement.amount,
            "status": "completed" if is_done else "pending",
            "reference_id": key,
        }
        if movement.note:
            body["metadata"] = {"note": movement.note}
        refused = movement.outcome == "refused"
        what = "transfers refused" if refused else "transfers"
        expected = (409,) if refused else (201,)
        answer = self._post(f"{transfers}/{movement.type}", key, body, expected, what)
        if movement.outcome in ("complete", "revert"):
            path = f"{transfers}/{answer['id']}/{movement.outcome}"
            self._post(path, f"{key}-{movement.outcome}", {}, (200,), "holds settled")

    def _transfers(self, account: str) -> str:
        return f"/v1/wallet/{self.played.wallets[account]}/transfers"

    def _post(self, path: str, key: str, body: Json, expected: tuple[int, ...], what: str) -> Json:
        response = self._send("POST", path, json=body, headers={"Idempotency-Key": key})
        answer = _accepted(response, expected)
        if response.headers.get("Idempotency-Replayed") == "true":
            self.played.replayed += 1
        else:
            self.played.new[what] += 1
        return answer

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **options)
        except httpx.HTTPError as failure:
            raise StackError(
                f"{self._client.base_url} does not respond ({failure}). `wallet up` (make up) "
                "starts the service; --url names another."
            ) from failure


def _accepted(response: httpx.Response, expected: tuple[int, ...]) -> Json:
    """The response's body; StackError for a status that the day doesn't expect."""
    if response.status_code in expected:
        answer: Json = response.json()
        return answer
    hint = " Set WALLET_API_KEY." if response.status_code in (401, 403) else ""
    raise StackError(
        f"{response.request.method} {response.request.url.path} got {response.status_code}: "
        f"{response.text[:300]}{hint} What was done stays; run it again to go on."
    )


def demo(url: str, api_key: str, console: Console) -> None:
    """Play the day and say what there is to look at.

    Raises:
        StackError: the service refused, or did not respond.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=False) as client:
        shop = Shop(client)
        shop.open()
        for step in demo_day.steps():
            shop.play(step)
        console.print(_summary(shop.played), highlight=False)
        console.print()
        console.print(_balances(shop))
    _say_where_to_look(console, url, shop.played.wallets)


def _summary(played: Played) -> str:
    if not played.new:
        return f"Nothing changed: all {played.replayed} requests had been sent before."
    done = ", ".join(f"{count} {what}" for what, count in played.new.items())
    again = f" {played.replayed} requests had been sent before." if played.replayed else ""
    return f"A day of a small shop: {done}.{again}"


def _balances(shop: Shop) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("WALLET")
    for title in ("BALANCE", "HELD", "VERSION"):
        table.add_column(title, justify="right")
    table.add_column("WHAT")
    for account in ACCOUNTS:
        wallet = shop.wallet(account.name)
        table.add_row(
            f"{_PREFIX}{account.name}",
            wallet["balance"],
            wallet["pending_credit"],
            str(wallet["version"]),
            account.what,
        )
    return table


def _say_where_to_look(console: Console, url: str, wallets: dict[str, str]) -> None:
    bank, till = wallets["bank"], wallets["till"]
    lines = [
        "",
        "To look at (a debit puts money INTO a wallet, a credit takes it OUT):",
        "",
        "  # the bank's transfers: rent, deliveries, salaries, two of them reverted",
        f"  curl '{url}/v1/wallet/{bank}/transfers?limit=5'",
        "  # a hold that is still open",
        f"  curl '{url}/v1/wallet/{wallets['card-omar']}/transfers?status=pending'",
        "  # a wallet by its reference",
        f"  curl '{url}/v1/wallet?reference_id={_PREFIX}card-mia'",
        "  # the till's events, as consumers get them",
        f"  wallet events tail --wallet {till} --from 1",
        "  # the ledger's consistency; load and processes",
        "  wallet verify --stream",
        "  wallet status",
        "",
        f"Run it again: nothing changes. The API, to try: {url}/docs",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
