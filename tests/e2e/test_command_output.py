"""What status, verify and keys print: tables of 80 columns, or one JSON document."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.api import Api
from tests.support.running_service import RunningService


def _json(service: RunningService, *arguments: str) -> Any:
    return json.loads(service.wallet(*arguments, "--json"))


def test_status_has_what_its_tables_have(local_service: RunningService) -> None:
    status = _json(local_service, "status")

    assert status["ready"] is True
    assert urlsplit(status["url"]).port == urlsplit(local_service.url).port
    assert status["events"].startswith("nats://127.0.0.1:")
    running = {process["name"]: process["running"] for process in status["processes"]}
    assert {"postgres", "nats", "ray"} <= {
        name for name, is_running in running.items() if is_running
    }
    assert {part["name"]: part["ready"] for part in status["components"]} == dict.fromkeys(
        ("postgres", "nats", "shards", "projections"), True
    )
    load = status["load"]
    assert all(shard["database_up"] for shard in load["shards"])
    assert all(replica["overloaded_total"] >= 0 for replica in load["replicas"])
    assert [projection["connected"] for projection in load["projections"]] == [True]
    assert load["shards"]
    assert load["replicas"]


def test_the_tables_of_status_are_whole_at_80_columns(local_service: RunningService) -> None:
    lines = local_service.wallet("status").splitlines()  # Not a terminal: 80 columns.

    assert max(map(len, lines)) <= 80
    assert [line for line in lines if "…" in line] == []
    titles = [line.split()[0] for line in lines if re.match(r"[A-Z]{5}", line)]
    assert titles[:5] == ["PROCESS", "REPLICA", "SHARD", "LATENCY", "PROJECTION"]


def test_verify_says_what_was_checked(local_service: RunningService, api: Api) -> None:
    api.create()

    verdict = _json(local_service, "verify", "--stream")

    assert (verdict["consistent"], verdict["violations"], verdict["findings"]) == (True, 0, [])
    assert verdict["checked"]["wallets"] >= 1
    assert verdict["stream"]["messages"] >= 1
    assert verdict["against"] is None


def test_a_key_is_created_listed_and_revoked(local_service: RunningService) -> None:
    created = _json(local_service, "keys", "create", "reports", "--scope", "wallets:read")
    assert created["key"].startswith(f"wk_{created['id']}_")

    def listed() -> Any:
        return next(
            key for key in _json(local_service, "keys", "list") if key["id"] == created["id"]
        )

    assert listed()["state"] == "active"
    assert (listed()["name"], listed()["scopes"]) == ("reports", ["wallets:read"])
    local_service.wallet("keys", "revoke", created["id"])
    assert listed()["state"] == "revoked"
    assert listed()["revoked_at"] is not None


def test_attribution_names_each_event(local_service: RunningService, api: Api) -> None:
    wallet_id = api.create().json()["id"]

    (event,) = _json(local_service, "keys", "attribution", wallet_id)

    assert (event["version"], event["type"]) == (1, "wallet.created")
    assert event["key_id"] is None, "authentication is off"
