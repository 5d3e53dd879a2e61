"""Interactive load from a web page: `make load`, then open http://localhost:8090.

Locust takes about as much CPU as the service
that it loads: for reliable figures use `make bench`.
"""

import random
from typing import Final

import uuid6
from locust import FastHttpUser, between, events, tag, task
from locust.env import Environment

_WALLETS: Final = 100
_BATCH: Final = 100

_wallets: list[str] = []
_hot: list[str] = []


@events.test_start.add_listener  # type: ignore[untyped-decorator]  # Locust has no types
def _open_wallets(environment: Environment, **_: object) -> None:
    """One wallet that everybody pays into, and some more."""
    import requests

    session = requests.Session()
    session.trust_env = False  # never through a proxy
    host = environment.host or "http://localhost:8089"

    def created() -> str:
        answer = session.post(f"{host}/v1/wallet", json={}, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["id"])

    if not _wallets:
        _hot.append(created())
        _wallets.extend(created() for _ in range(_WALLETS))


class Payer(FastHttpUser):
    """Pays into the hot wallet, and sometimes into others; reads wallets."""

    wait_time = between(0.01, 0.05)

    @tag("hot")
    @task(10)
    def pay_into_the_hot_wallet(self) -> None:
        """A debit (money in), completed at once, under a key of its own."""
        self.client.post(
            f"/v1/wallet/{_hot[0]}/transfers/debit",
            json={"amount": "1.00", "status": "completed"},
            headers={"Idempotency-Key": str(uuid6.uuid7())},
            name="hot wallet: debit",
        )

    @tag("uniform")
    @task(5)
    def pay_into_any_wallet(self) -> None:
        """A debit to one of many wallets."""
        self.client.post(
            f"/v1/wallet/{random.choice(_wallets)}/transfers/debit",
            json={"amount": "1.00", "status": "completed"},
            name="any wallet: debit",
        )

    @tag("two-phase")
    @task(2)
    def hold_and_complete(self) -> None:
        """Create a pending debit, then complete it."""
        wallet = random.choice(_wallets)
        with self.client.post(
            f"/v1/wallet/{wallet}/transfers/debit",
            json={"amount": "1.00"},
            name="any wallet: pending debit",
        ) as created:
            if created.status_code != 201:
                return
            transfer = created.json()["id"]
        self.client.post(
            f"/v1/wallet/{wallet}/transfers/{transfer}/complete",
            name="any wallet: complete",
        )

    @tag("batch")
    @task(1)
    def pay_in_batches(self) -> None:
        """A hundred debits in one request."""
        item = {"type": "debit", "amount": "1.00", "status": "completed"}
        self.client.post(
            f"/v1/wallet/{_hot[0]}/transfers/batch",
            json={"items": [item] * _BATCH},
            name=f"hot wallet: batch of {_BATCH}",
        )

    @tag("read")
    @task(4)
    def read(self) -> None:
        """A read from the projection."""
        self.client.get(f"/v1/wallet/{random.choice(_wallets)}", name="any wallet: read")
