"""A DSN is read as the driver reads it, and shown without anything secret."""

import warnings
from typing import Any

import pytest
from asyncpg import connect_utils

from runtime.logging import secrets_in
from runtime.postgres.connect import Connector
from runtime.postgres.dsn import Host, PostgresDsn
from runtime.postgres.errors import InvalidDsn
from runtime.settings import Settings

PASSWORD = "s3cr3t"


NAMES = (
    *("host", "port", "user", "password", "passfile", "database", "ssl", "service", "servicefile"),
    *("direct_tls", "server_settings", "target_session_attrs", "krbsrvname", "gsslib"),
)


def as_the_driver_reads(dsn: str, **arguments: Any) -> tuple[list[Any], Any]:
    read: Any = connect_utils._parse_connect_dsn_and_args  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        addresses, options = read(dsn=dsn, **{**dict.fromkeys(NAMES), **arguments})
    # Without an sslmode the driver encrypts no socket, which it doesn't do anyway.
    mode = options.sslmode if "sslmode" in dsn else None
    return list(addresses), options._replace(ssl=None, sslmode=mode)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:p@one/db",
        "postgres://u:p@one:6000/db?sslmode=disable",
        "postgresql://u:p@one:1,two:2,three/db?target_session_attrs=any&sslmode=require",
        "postgresql://u:p@[::1]:1,[fe80::2]/db",
        "postgresql://u@[::1]/db",
        "postgresql:///db?host=one,two&port=1,2&user=u",
        "postgresql:///db?host=one,two&port=9&user=u&password=p%26q",
        "postgresql:///db?host=/run/pg,one&user=u&application_name=a%20b",
        "postgresql://u:p%40%2F%23@%2Frun%2Fpg/db",
        "postgresql://%75ser:p@one/d%20b?options=-c%20jit%3Doff",
        "postgresql://u:p@/db",
        "postgresql://u@one",
        "",
    ],
)
def test_one_host_at_a_time_is_what_the_driver_makes_of_all(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    expected, options = as_the_driver_reads(dsn)
    parsed = PostgresDsn.parse(dsn)
    found = []
    for host in parsed.hosts or (Host("", None),):
        addresses, same = as_the_driver_reads(
            parsed.without_hosts, host=host.name or None, port=host.port
        )
        found += addresses
        assert same == options
    assert found == expected


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://a,b:2/db?port=7", (Host("a", 7), Host("b", 2))),
        ("postgresql://a:1,[::1]:2,c/db", (Host("a", 1), Host("::1", 2), Host("c", None))),
        ("postgresql:///db?host=[::1]:1,b", (Host("::1", 1), Host("b", None))),
        ("postgresql+asyncpg://a/db", (Host("a", None),)),
    ],
)
def test_lists_that_only_this_service_accepts(dsn: str, hosts: tuple[Host, ...]) -> None:
    assert PostgresDsn.parse(dsn).hosts == hosts


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        (f"postgresql://u:{PASSWORD}@a:1,b:2/db?sslmode=require", "postgresql://a:1,b:2/db"),
        (f"postgresql://u:{PASSWORD}@[::1]:1/db", "postgresql://[::1]:1/db"),
        (f"postgresql:///db?host=/run/x&password={PASSWORD}", "postgresql://%2Frun%2Fx/db"),
        (f"postgres://a?password={PASSWORD}&dbname=db", "postgresql://a/db"),
    ],
)
def test_it_is_shown_without_user_password_and_options(dsn: str, shown: str) -> None:
    parsed = PostgresDsn.parse(dsn)
    assert str(parsed) == shown
    assert PASSWORD not in repr(parsed)
    assert PASSWORD in secrets_in(Settings(_env_file=None, database_url=dsn))


@pytest.mark.parametrize(
    "dsn",
    [
        f"host=a password={PASSWORD}",
        f"mysql://u:{PASSWORD}@a/db",
        f"postgresql://u:{PASSWORD}@x@a/db",
        f"postgresql://u:{PASSWORD}/x@a/db",
        f"postgresql://u:1/{PASSWORD}@a/db",
        f"postgresql://u:1#{PASSWORD}@a/db",
        f"postgresql://u:1?{PASSWORD}@a/db",
        f"postgresql://u:{PASSWORD}@a:x/db",
        f"postgresql://u:{PASSWORD}@a:0/db",
        f"postgresql://u:{PASSWORD}@a:65536/db",
        f"postgresql://u:{PASSWORD}@a,,b/db",
        f"postgresql://u:{PASSWORD}@a,b/db?port=1,2,3",
        f"postgresql://u:{PASSWORD}@[::1/db",
        f"postgresql://u:{PASSWORD}@a/db?sslmode",
        f"postgresql://u:{PASSWORD}@a/db?target_session_attrs=king",
    ],
)
def test_a_malformed_one_is_refused_without_being_quoted(dsn: str) -> None:
    with pytest.raises(InvalidDsn) as refused:
        Connector(dsn, timeout_s=1.0)
    assert PASSWORD not in str(refused.value)
    assert refused.value.__cause__ is None
