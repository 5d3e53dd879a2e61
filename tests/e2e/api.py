"""A client of the service for tests: one method per request, raw responses."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import httpx
import uuid6

from deploy.local.processes import wait_until

_TIMEOUT_S: Final = 30.0

Json = Any


def new_id() -> str:
    return str(uuid6.uuid7())


def eventually(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Poll until ``condition`` is true; AssertionError on time-out."""
    assert wait_until(condition, timeout_s=timeout_s), (
        f"condition still false after {timeout_s:g} s"
    )


class Api:
    """One method per route. Nothing is retried, and no status raises."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=_TIMEOUT_S)

    def __enter__(self) -> "Api":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(self, path: str, body: Json = None, *, key: str | None = None, **options: Any) -> Any:
        """POST a JSON body (None: an empty one), under an Idempotency-Key if one is given."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["Idempotency-Key"] = key
        content = {} if body is None else {"json": body}
        return self.http.post(path, headers=headers, **content, **options)

    def create(self, body: Json = None, **options: Any) -> httpx.Response:
        answer: httpx.Response = self.post("/v1/wallet", body, **options)
        return answer

    def debit(self, wallet: str, body: Json, **options: Any) -> httpx.Response:
        answer: httpx.Response = self.post(f"/v1/wallet/{wallet}/transfers/debit", body, **options)
        return answer

    def credit(self, wallet: str, body: Json, **options: Any) -> httpx.Response:
        answer: httpx.Response = self.post(f"/v1/wallet/{wallet}/transfers/credit", body, **options)
        return answer

    def settle(
        self, wallet: str, transfer: str, how: str, body: Json = None, **options: Any
    ) -> httpx.Response:
        path = f"/v1/wallet/{wallet}/transfers/{transfer}/{how}"
        answer: httpx.Response = self.post(path, body, **options)
        return answer

    def batch(self, wallet: str, body: Json, **options: Any) -> httpx.Response:
        answer: httpx.Response = self.post(f"/v1/wallet/{wallet}/transfers/batch", body, **options)
        return answer

    def wallet(self, wallet: str, **query: Any) -> httpx.Response:
        return self.get(f"/v1/wallet/{wallet}", params=query)

    def transfer(self, wallet: str, transfer: str) -> httpx.Response:
        return self.get(f"/v1/wallet/{wallet}/transfers/{transfer}")

    def transfers(self, wallet: str, **query: Any) -> httpx.Response:
        return self.get(f"/v1/wallet/{wallet}/transfers", params=query)

    def new_wallet(self, amount: str | None = None, **fields: Any) -> str:
        """The id of a new wallet, with ``amount`` in it if one is given."""
        made = self.create(fields or None)
        assert made.status_code == 201, made.text
        wallet: str = made.json()["id"]
        if amount is not None:
            put_in = self.debit(wallet, {"amount": amount, "status": "completed"})
            assert put_in.status_code == 201, put_in.text
        return wallet

    def state(self, wallet: str) -> Json:
        """The complete current wallet, to compare before and after."""
        found = self.wallet(wallet, consistency="strong")
        assert found.status_code == 200, found.text
        return found.json()
