"""`?sslmode=` with a server whose certificate no public authority has signed."""

import asyncio
from pathlib import Path

import pytest

from actors.rpc.tls import TlsFiles
from migrations.migrate import upgrade
from runtime.postgres.connect import CONNECT_ERRORS, connect
from tests.support.certificates import tls_files
from tests.support.databases import in_own_loop
from tests.support.hosts import address_of, dsn_of, unanswering_host
from tests.support.tls_front import tls_before


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TlsFiles:
    monkeypatch.setenv("HOME", str(tmp_path))  # It may have a ~/.postgresql/root.crt.
    return tls_files(tmp_path / "tls")


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
async def test_the_mode_decides_about_encryption_with_each_host(
    database: str, certificate: TlsFiles, options: str, encrypted: bool
) -> None:
    options = options.format(authority=certificate.shard_tls_authority)
    async with tls_before(address_of(database), certificate) as front:
        with unanswering_host() as hung:
            dsn = dsn_of(hung, front.address, of=database, options=options)
            connection = await connect(dsn, timeout_s=4.0)
        assert await connection.fetchval("SELECT 1") == 1
        connection.terminate()
        assert (front.encrypted, front.plain) == ((1, 0) if encrypted else (0, 1))


@pytest.mark.parametrize(
    "options",
    ["?sslmode=verify-full&sslrootcert={authority}", "?sslmode=verify-ca", "?sslmode=sometimes"],
)
async def test_a_server_that_does_not_prove_its_identity_is_refused(
    database: str, certificate: TlsFiles, options: str
) -> None:
    options = options.format(authority=certificate.shard_tls_authority)
    async with tls_before(address_of(database), certificate) as front:
        with pytest.raises(CONNECT_ERRORS):
            await connect(dsn_of(front.address, of=database, options=options), timeout_s=4.0)
        assert (front.encrypted, front.plain) == (0, 0)


@pytest.mark.parametrize("mode", ["require", "verify-ca"])
async def test_a_server_without_encryption_is_refused(
    database: str, certificate: TlsFiles, mode: str
) -> None:
    options = f"?sslmode={mode}&sslrootcert={certificate.shard_tls_authority}"
    with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
        await connect(database + options, timeout_s=4.0)


def test_migrations_run_encrypted_over_several_hosts(
    empty_database: str, certificate: TlsFiles
) -> None:
    async def migrate() -> int:
        async with tls_before(address_of(empty_database), certificate) as front:
            with unanswering_host() as hung:
                dsn = dsn_of(hung, front.address, of=empty_database, options="?sslmode=require")
                await asyncio.to_thread(upgrade, dsn)
            return front.encrypted

    assert in_own_loop(migrate()) == 2, "one for the revisions, one for the indexes"
