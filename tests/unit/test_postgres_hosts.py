"""Hosts are tried one by one, each for its share of the time-out."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from runtime.postgres.connect import Connector, Role
from runtime.postgres.errors import NoHostAvailable, PoolerRefused
from runtime.postgres.pooler import MARKER
from runtime.postgres.session import SUSPECT_S, Watch

HOSTS = "postgresql://u:p@a,b,c/db"
PID = 7


class FakeSession:
    """What the driver returns: a server's session, or a pooler's."""

    def __init__(self, host: str, pids: list[int] | None = None) -> None:
        self.name = host
        self.host: object = None
        self.watch: Watch
        self.is_terminated = False
        self._pids = pids
        self.marker: str | None = MARKER["wallet.session"]

    def get_server_pid(self) -> int:
        return PID

    async def fetchrow(self, _sql: str) -> tuple[int, str | None]:
        return await self.fetchval(_sql), self.marker

    async def fetchval(self, _sql: str) -> int:
        return PID if self._pids is None else self._pids.pop(0)

    def terminate(self) -> None:
        self.is_terminated = True

    def is_closed(self) -> bool:
        return self.is_terminated


Behaviour = Callable[[], Awaitable[None]]


class Network:
    """Replaces the driver: what happens when a host is connected to, and when it happened."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.attempts: list[tuple[str, float]] = []
        self.targets: set[str] = set()
        self.sessions: list[FakeSession] = []
        self.pids: list[int] | None = None
        self.marker: str | None = MARKER["wallet.session"]

    async def connect(self, _dsn: str, *, host: str, **options: Any) -> FakeSession:
        self.attempts.append((host, round(asyncio.get_running_loop().time(), 2)))
        self.targets.add(options["target_session_attrs"].value)
        await self.behaviours.get(host, answers)()
        session = FakeSession(host, self.pids)
        session.marker = self.marker
        self.sessions.append(session)
        return session


async def answers() -> None:
    pass


async def hangs() -> None:
    await asyncio.sleep(3600)


async def refuses() -> None:
    raise ConnectionRefusedError("refused")


async def is_a_standby() -> None:
    raise asyncpg.TargetServerAttributeNotMatched("None of the hosts match")


async def is_full() -> None:
    raise asyncpg.TooManyConnectionsError("sorry, too many clients already")


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(asyncpg, "connect", made.connect)
    return made


async def connected_to(connector: Connector) -> str:
    return str((await connector.connect()).name)  # type: ignore[attr-defined]


async def test_each_host_has_its_share_of_the_time(network: Network) -> None:
    network.behaviours = {"a": hangs, "b": hangs}
    assert await connected_to(Connector(HOSTS, timeout_s=3.0)) == "c"
    assert network.attempts == [("a", 0.0), ("b", 1.0), ("c", 2.0)]


async def test_a_host_that_refuses_leaves_its_time_to_the_others(network: Network) -> None:
    network.behaviours = {"a": refuses, "b": hangs}
    assert await connected_to(Connector(HOSTS, timeout_s=3.0)) == "c"
    assert network.attempts == [("a", 0.0), ("b", 0.0), ("c", 1.5)]


async def test_without_a_usable_host_the_error_names_each(network: Network) -> None:
    network.behaviours = {"a": hangs, "b": refuses, "c": is_a_standby}
    with pytest.raises(NoHostAvailable) as failed:
        await Connector(HOSTS, timeout_s=3.0).connect()
    assert str(failed.value) == (
        "a: no answer in time; b: refused; c: not a primary that accepts this session"
    )
    assert asyncio.get_running_loop().time() < 3.0


async def test_the_whole_time_belongs_to_an_only_host(network: Network) -> None:
    network.behaviours = {"a": hangs}
    with pytest.raises(TimeoutError):
        await Connector("postgresql://a/db", timeout_s=3.0).connect()
    assert asyncio.get_running_loop().time() == pytest.approx(3.0, abs=0.01)


async def test_a_full_server_is_skipped_and_an_only_one_says_why(network: Network) -> None:
    network.behaviours = {"a": is_full}
    assert await connected_to(Connector(HOSTS, timeout_s=3.0)) == "b"
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await Connector("postgresql://a/db", timeout_s=3.0).connect()


async def test_the_next_connection_begins_with_the_last_host(network: Network) -> None:
    connector = Connector(HOSTS, timeout_s=3.0)
    network.behaviours = {"a": hangs}
    assert await connected_to(connector) == "b"
    network.attempts.clear()
    assert await connected_to(connector) == "b"
    network.behaviours = {"b": is_a_standby}
    assert await connected_to(connector) == "a"
    assert [host for host, _ in network.attempts] == ["b", "b", "a"]


@pytest.mark.parametrize(
    ("dsn", "role", "target"),
    [
        (HOSTS, Role.WRITER, "read-write"),
        (HOSTS, Role.READER, "primary"),
        ("postgresql://a/db", Role.WRITER, "read-write"),
        ("postgresql://a/db", Role.READER, "any"),
        (f"{HOSTS}?target_session_attrs=any", Role.WRITER, "any"),
    ],
)
async def test_hosts_in_another_role_are_skipped(
    network: Network, dsn: str, role: Role, target: str
) -> None:
    await Connector(dsn, timeout_s=3.0, role=role).connect()
    assert network.targets == {target}


async def test_a_standby_as_the_only_host_is_named(network: Network) -> None:
    network.behaviours = {"a": is_a_standby}
    with pytest.raises(NoHostAvailable, match="a: not a primary"):
        await Connector("postgresql://a/db", timeout_s=3.0).connect()


@pytest.mark.parametrize(
    ("pids", "evidence"),
    [
        ([1] * 10, "share a backend"),
        ([1, 1, 1, 1, 2, 1, 2, 1, 1, 1], "share a backend"),
        ([1, 1, 2, 3, 4, 5, 6, 7, 8, 9], "changes its backend"),
        (None, "drops the settings"),
    ],
)
async def test_a_pooler_is_refused_even_if_another_host_is_none(
    network: Network, pids: list[int] | None, evidence: str
) -> None:
    network.pids = pids
    network.marker = None if pids is None else network.marker
    with pytest.raises(PoolerRefused, match=f"^a is .*{evidence}"):
        await Connector(HOSTS, timeout_s=3.0).connect()
    assert all(session.is_terminated for session in network.sessions)


async def test_a_refused_startup_parameter_is_a_pooler(network: Network) -> None:
    async def knows_no_setting() -> None:
        raise asyncpg.ProtocolViolationError("unsupported startup parameter: jit")

    network.behaviours = {"a": knows_no_setting}
    with pytest.raises(PoolerRefused, match="unsupported startup parameter: jit"):
        await Connector(HOSTS, timeout_s=3.0).connect()


async def test_a_proxy_with_its_own_pids_that_keeps_sessions_is_used(network: Network) -> None:
    network.pids = [1, 1, 1, 1, 2, 1, 2, 1, 2, 1]
    assert await connected_to(Connector(HOSTS, timeout_s=3.0)) == "a"


async def test_a_statement_is_given_up_when_only_its_host_hangs(network: Network) -> None:
    session: Any = await Connector(HOSTS, timeout_s=3.0).connect()
    network.behaviours = {"a": hangs}
    with session.watch:
        await asyncio.sleep(SUSPECT_S + 0.9)
        assert not session.is_terminated
        await asyncio.sleep(0.2)
        assert session.is_terminated
    assert [one.is_terminated for one in network.sessions] == [True, True]


@pytest.mark.parametrize("others", [hangs, is_a_standby])
async def test_it_goes_on_while_no_other_host_can_be_used(
    network: Network, others: Behaviour
) -> None:
    session: Any = await Connector(HOSTS, timeout_s=3.0).connect()
    network.behaviours = {"a": hangs, "b": others, "c": others}
    with session.watch:
        await asyncio.sleep(60)
    assert not session.is_terminated
    assert len(network.attempts) > 10


@pytest.mark.parametrize("alive", [answers, is_full, is_a_standby])
async def test_a_statement_that_waits_on_a_live_host_goes_on(
    network: Network, alive: Behaviour
) -> None:
    session: Any = await Connector(HOSTS, timeout_s=3.0).connect()
    network.behaviours = {"a": alive}
    with session.watch:
        await asyncio.sleep(60)
    assert not session.is_terminated
    assert {host for host, _ in network.attempts} == {"a"}


async def test_short_statements_and_only_hosts_are_not_examined(network: Network) -> None:
    session: Any = await Connector(HOSTS, timeout_s=3.0).connect()
    for _ in range(100):
        with session.watch:
            await asyncio.sleep(SUSPECT_S / 2)
    await asyncio.sleep(60)
    only: Any = await Connector("postgresql://a/db", timeout_s=3.0).connect()
    with only.watch:
        await asyncio.sleep(60)
    assert len(network.attempts) == 2
