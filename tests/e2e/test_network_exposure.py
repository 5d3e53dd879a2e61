"""A stack with authentication: access per port, key expiry and revocation, and attribution."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import pytest

from deploy.local.processes import process_tree, processes_with_env
from deploy.local.ray_environment import STACK_VARIABLE
from tests.e2e.api import Api, new_id
from tests.e2e.problems import assert_problem
from tests.support import remote_client
from tests.support.process_facts import listening_ports, title_of
from tests.support.running_service import RunningService, own_service

NO_REMOTE_CLIENTS: Final = remote_client.unavailable_reason()
STALENESS_S: Final = 2.0
ENTRY: Final = "import sys; from deploy.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    """A service with authentication, on all interfaces if a remote client can be simulated."""
    settings = {
        "WALLET_AUTH": "required",
        "WALLET_HTTP_HOST": "127.0.0.1" if NO_REMOTE_CLIENTS else "0.0.0.0",
        "WALLET_API_KEY_CACHE_TTL_S": str(STALENESS_S),
        "WALLET_API_KEY_LAST_USED_FLUSH_INTERVAL_S": "0.5",
        "WALLET_LOG_LEVEL": "DEBUG",
    }
    with own_service(settings) as running:
        yield running


@pytest.fixture(scope="module")
def handed_out() -> list[str]:
    """All keys that the tests of this module created."""
    return []


class Keys:
    """Creates keys with the CLI, and clients that use them."""

    def __init__(self, service: RunningService, handed_out: list[str]) -> None:
        self._service = service
        self._handed_out = handed_out

    def make(self, *scopes: str, **options: str) -> str:
        wanted = [f"--scope={scope}" for scope in scopes or ("wallets:read", "wallets:write")]
        wanted += [f"--{name.replace('_', '-')}={text}" for name, text in options.items()]
        key = self._service.wallet("keys", "create", "a test's", *wanted).strip()
        self._handed_out.append(key)
        return key

    def client(self, key: str) -> Api:
        api = Api(self._service.url)
        api.http.headers["Authorization"] = f"Bearer {key}"
        return api


@pytest.fixture(scope="module")
def keys(service: RunningService, handed_out: list[str]) -> Keys:
    return Keys(service, handed_out)


@pytest.fixture(scope="module")
def api(keys: Keys) -> Iterator[Api]:
    """A client with a key for wallets."""
    with keys.client(keys.make()) as client:
        yield client


def listening(service: RunningService) -> dict[int, str]:
    """Every TCP port that a process of the stack listens on, with the process' title."""
    assert service.state_dir is not None
    stack = service.state_dir.load()
    processes = processes_with_env(STACK_VARIABLE, stack.id)
    for recorded in stack.alive_processes().values():
        processes += process_tree(recorded)
    found: dict[int, str] = {}
    for process in processes:
        title = title_of(process)[:300]
        found |= dict.fromkeys(listening_ports(process), title)
    return found


@pytest.mark.skipif(bool(NO_REMOTE_CLIENTS), reason=str(NO_REMOTE_CLIENTS))
def test_no_port_answers_an_unauthenticated_client(service: RunningService) -> None:
    ports = listening(service)
    front = int(service.url.rpartition(":")[2])
    titles = " ".join(ports.values())
    for part in ("haproxy", "postgres", "nats", "gcs_server", "raylet", "ray::Shard", "ray::Serve"):
        assert part in titles, f"{part} was not found: the list can't be complete"

    with remote_client.remote_client() as namespace:
        answers = remote_client.try_ports(namespace, f"/v1/wallet/{new_id()}", sorted(ports))

    assert answers[front] == "401", "the remote client must be able to reach this machine"
    reported = {f"{port} {ports[port]}": answers[port] for port in ports}
    refused = {"closed", "401", "404", "UNAUTHENTICATED"}
    assert {where: what for where, what in reported.items() if what not in refused} == {}
    # Closed, except HTTP with API keys and gRPC with Ray's token.
    assert set(answers.values()) >= {"closed", "401", "UNAUTHENTICATED"}


def test_every_http_port_asks_for_a_key(service: RunningService, api: Api) -> None:
    wallet = api.new_wallet("5.00")
    before = api.state(wallet)
    ways = 0
    for port, title in listening(service).items():
        if (
            not title.startswith(("ray::ServeReplica:api", "ray::ProxyActor"))
            and str(port) != service.url.rpartition(":")[2]
        ):
            continue
        try:
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/wallet/{wallet}/transfers/credit",
                json={"amount": "1.00", "status": "completed"},
                timeout=10,
            )
        except httpx.TransportError:
            continue  # gRPC
        assert_problem(answer, 401, "key_required")
        ways += 1

    assert ways >= 3, "HAProxy, a replica, Serve's fallback proxy"
    assert api.state(wallet) == before


def test_a_key_opens_what_its_scopes_say(keys: Keys, api: Api) -> None:
    wallet = api.new_wallet("5.00")
    with keys.client(keys.make("wallets:read")) as reader:
        assert reader.wallet(wallet).status_code == 200
        refused = reader.credit(wallet, {"amount": "1.00"})
    assert_problem(refused, 403, "scope_missing")
    assert 'scope="wallets:write"' in refused.headers["www-authenticate"]

    with keys.client(keys.make("wallets:write")) as writer:
        assert writer.credit(wallet, {"amount": "1.00", "status": "completed"}).status_code == 201
        assert_problem(writer.wallet(wallet), 403, "scope_missing")

    assert api.state(wallet)["balance"] == "4.00"


def test_what_is_no_good_key_is_refused(service: RunningService, keys: Keys) -> None:
    good, other = keys.make(), keys.make()
    forged = f"{good.rpartition('_')[0]}_{other.rpartition('_')[2]}"
    for sent in (forged, good[:-1], "wk_" + "0" * 16 + "_" + "0" * 64, "x", good.upper()):
        with keys.client(sent) as client:
            assert_problem(client.create({}), 401, "key_invalid")
    with Api(service.url) as nobody:
        assert_problem(nobody.create({}), 401, "key_required")
        for path in ("/healthz", "/docs", "/openapi.json", "/problems/key_invalid"):
            assert nobody.get(path).status_code == 200


def test_a_revoked_key_stops_in_time_though_it_is_used_all_the_time(
    service: RunningService, keys: Keys
) -> None:
    key = keys.make()
    with keys.client(key) as client:
        wallet = client.new_wallet("1.00")
        service.wallet("keys", "revoke", key.split("_")[1])
        deadline = time.monotonic() + STALENESS_S
        while time.monotonic() < deadline:
            client.wallet(wallet)
        for _ in range(20):  # whichever replica it comes to
            refused = assert_problem(client.wallet(wallet), 401, "key_invalid")
            assert refused["detail"] == "This key was revoked."


def test_a_stream_does_not_outlive_its_key(service: RunningService, keys: Keys, api: Api) -> None:
    wallet, key = api.new_wallet(), keys.make()
    line = json.dumps({"wallet_id": wallet, "type": "debit", "amount": "1", "status": "completed"})

    def lines() -> Iterator[bytes]:
        yield f"{line}\n".encode()
        service.wallet("keys", "revoke", key.split("_")[1])
        time.sleep(STALENESS_S)
        yield f"{line}\n".encode()

    headers = {"Content-Type": "application/x-ndjson"}
    with keys.client(key) as client:
        answer = client.http.post("/v1/transfers/batch", content=lines(), headers=headers)

    first, second = map(json.loads, answer.text.splitlines())
    assert first["status"] == 201
    assert (second["status"], second["problem"]["code"]) == (401, "key_invalid")
    assert api.state(wallet)["balance"] == "1.00"


def test_a_key_has_its_rate(keys: Keys, api: Api) -> None:
    wallet = api.new_wallet("5.00")
    with keys.client(keys.make(rate="1")) as slow:
        answers = [slow.wallet(wallet) for _ in range(40)]  # two replicas, a burst of two each
        late = [answer for answer in answers if answer.status_code != 200]
        assert len(late) >= 20
        assert_problem(late[0], 429, "rate_limited")
        wait_s = int(late[0].headers["retry-after"])
        assert wait_s == 1
        time.sleep(wait_s)
        assert slow.wallet(wallet).status_code == 200
    assert api.wallet(wallet).status_code == 200, "other keys are not limited"


async def _made_by(service: RunningService, wallet: str) -> list[str | None]:
    connection = await asyncpg.connect(service.database_url)
    try:
        rows = await connection.fetch(
            "SELECT made_by FROM wallet_events WHERE wallet_id = $1::uuid ORDER BY version", wallet
        )
    finally:
        await connection.close()
    return [row["made_by"] for row in rows]


def test_the_journal_says_which_key_made_what(
    service: RunningService, keys: Keys, api: Api
) -> None:
    key = keys.make()
    key_id = key.split("_")[1]
    with keys.client(key) as client:
        wallet = client.new_wallet("5.00")
        held = client.credit(wallet, {"amount": "1.00"}, key="once")
        replayed = api.credit(wallet, {"amount": "1.00"}, key="once")  # with another key
        assert replayed.headers["idempotency-replayed"] == "true"
        assert replayed.json() == held.json()
        client.settle(wallet, held.json()["id"], "complete")
        debits = [{"type": "debit", "amount": "1.00", "status": "completed"}] * 2
        assert client.batch(wallet, {"items": debits}).status_code == 200

    assert asyncio.run(_made_by(service, wallet)) == [key_id] * 6
    shown = service.wallet("keys", "attribution", wallet)
    assert shown.count(key_id) == 6
    assert "a test's" in shown


def test_the_list_shows_what_there_is_and_when_it_was_used(
    service: RunningService, keys: Keys
) -> None:
    used, unused = keys.make(), keys.make("admin", expires_in_days="1", rate="7")
    with keys.client(used) as client:
        client.new_wallet()

    def line_of(key: str) -> Any:
        listed = service.wallet("keys", "list").splitlines()
        return next(line for line in listed if key.split("_")[1] in line)

    deadline = time.monotonic() + 60  # each poll starts a process
    while line_of(used).count("Z") < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert line_of(used).count("Z") == 2, "created and used"
    assert "7/s" in line_of(unused)
    assert line_of(unused).count("Z") == 2, "created with an expiry"


def test_readiness_shows_details_to_admins_only(service: RunningService, keys: Keys) -> None:
    def detail(key: str | None) -> str:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = httpx.get(f"{service.url}/readyz", headers=headers, timeout=10)
        return str(answer.json()["components"]["shards"]["detail"])

    assert "of 2" in detail(keys.make("admin"))
    assert detail(keys.make()) == detail(None) == "ready"


def test_no_key_is_in_any_log(service: RunningService, handed_out: list[str]) -> None:
    assert service.state_dir is not None
    stack = service.state_dir.load()
    assert stack.sockets is not None
    folders = (service.state_dir.logs, stack.sockets / "ray", stack.sockets / "h")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    secrets = [key.rpartition("_")[2].encode() for key in handed_out]
    assert len(files) > 10
    assert len(secrets) > 5

    for path in files:
        text = path.read_bytes()
        assert not [secret for secret in secrets if secret in text], path


def test_without_keys_it_does_not_listen_beyond_loopback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "up"],
        env={"WALLET_HOME": str(tmp_path / "home"), "WALLET_HTTP_HOST": "0.0.0.0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "WALLET_AUTH=required" in done.stderr
    assert "WALLET_ALLOW_UNAUTHENTICATED_REMOTE=true" in done.stderr
