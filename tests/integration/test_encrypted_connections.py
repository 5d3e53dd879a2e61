"""`?sslmode=` against a server whose certificate no public authority has signed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrations.migrate import upgrade
from runtime.postgres.connect import CONNECT_ERRORS, connect
from tests.support import databases, servers
from tests.support.certificates import tls_files
from tests.support.hosts import address_of, dsn_of, unanswering_host

_IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Embedded: its certificate is a file beside its data."""
    with servers.postgres_server(use_docker=False) as url:
        yield url


@pytest.fixture(scope="module")
def authority(server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Gives the server a certificate; the file of the authority that signed it."""
    files = tls_files(tmp_path_factory.mktemp("tls"))
    data = Path(databases.in_own_loop(_setting(server, "data_directory")))
    for name, source in (
        ("server.crt", files.shard_tls_certificate),
        ("server.key", files.shard_tls_key),
    ):
        shutil.copy(source, data / name)
        os.chown(data / name, data.stat().st_uid, data.stat().st_gid)
        (data / name).chmod(0o600)
    databases.execute(server, "ALTER SYSTEM SET ssl = on")
    databases.execute(server, "SELECT pg_reload_conf()")
    return files.shard_tls_authority


async def _setting(url: str, name: str) -> str:
    connection = await connect(url, timeout_s=10.0)
    try:
        return str(await connection.fetchval("SELECT current_setting($1)", name))
    finally:
        connection.terminate()


async def is_encrypted(dsn: str) -> bool:
    connection = await connect(dsn, timeout_s=10.0)
    try:
        return bool(await connection.fetchval(_IS_ENCRYPTED))
    finally:
        connection.terminate()


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ("?sslmode=disable", False),
        ("?sslmode=allow", False),
        ("", True),
        ("?sslmode=prefer", True),
        ("?sslmode=require", True),
        ("?sslmode=verify-ca&sslrootcert={authority}", True),
    ],
)
async def test_a_mode_decides_about_encryption_with_each_host(
    server: str, authority: str, options: str, encrypted: bool
) -> None:
    with unanswering_host() as dead:
        dsn = dsn_of(
            dead, address_of(server), of=server, options=options.format(authority=authority)
        )
        assert await is_encrypted(dsn) is encrypted


@pytest.mark.parametrize(
    "options",
    ["?sslmode=verify-full&sslrootcert={authority}", "?sslmode=verify-ca", "?sslmode=sometimes"],
)
async def test_an_identity_that_is_not_proven_is_refused(
    server: str, authority: str, options: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # without a ~/.postgresql/root.crt
    with pytest.raises(CONNECT_ERRORS):
        await is_encrypted(server + options.format(authority=authority))


def test_migrations_run_encrypted_over_several_hosts(server: str, authority: str) -> None:
    assert authority
    with databases.empty_database(server) as url, unanswering_host() as dead:
        dsn = dsn_of(dead, address_of(url), of=url, options="?sslmode=require")
        assert upgrade(dsn) is None
        assert upgrade(dsn.replace("require", "disable")) is None
