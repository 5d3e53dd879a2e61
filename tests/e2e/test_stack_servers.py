"""The embedded servers: durable, and able to restart after any crash."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import nats as nats_client
import pytest

from deploy.local import nats, postgres
from deploy.local.errors import StackError
from deploy.local.ports import free_port
from deploy.local.postgres_layout import remove_data, resolve_layout
from deploy.local.processes import ProcessRecord, is_alive, kill, process_tree, stop, wait_until
from tests.support.servers import reachable_folder


@pytest.fixture
def options() -> Iterator[postgres.PostgresOptions]:
    with reachable_folder("postgres") as folder:
        place = resolve_layout(folder)
        yield postgres.PostgresOptions(
            place=place, port=free_port(), log_file=folder.parent / "postgres.log"
        )
        running = postgres.running_server(place)
        if running:
            postgres.stop_server(running)
        remove_data(folder)


@pytest.fixture
def nats_options(tmp_path: Path) -> nats.NatsOptions:
    return nats.NatsOptions(
        folder=tmp_path / "nats", port=free_port(), log_file=tmp_path / "nats.log", sync_s=1.0
    )


def run(options: postgres.PostgresOptions) -> ProcessRecord:
    postgres.initialise(options)
    process = postgres.start(options)
    postgres.wait_until_ready(options, process)
    return process


async def ask(options: postgres.PostgresOptions, question: str) -> object:
    connection = await asyncpg.connect(options.url, timeout=10)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_an_acknowledged_write_is_on_the_disk(options: postgres.PostgresOptions) -> None:
    run(options)

    for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert await ask(options, f"SELECT current_setting('{setting}')") == "on", setting


async def test_only_loopback_and_only_with_the_password(options: postgres.PostgresOptions) -> None:
    run(options)

    assert await ask(options, "SELECT current_setting('listen_addresses')") == "127.0.0.1"
    assert await ask(options, "SELECT current_setting('unix_socket_directories')") == ""
    assert options.place.password_file.stat().st_mode & 0o077 == 0
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(options.url.replace(":", ":x", 2).replace("x//", "//"), timeout=10)


async def test_data_outlives_a_stop_and_a_crash(options: postgres.PostgresOptions) -> None:
    first = run(options)
    await ask(options, "CREATE TABLE kept (number int)")
    await ask(options, "INSERT INTO kept VALUES (1)")
    assert postgres.stop_server(first)

    second = run(options)
    await ask(options, "INSERT INTO kept VALUES (2)")
    kill(process_tree(second))  # leaves a lock file of a dead process

    run(options)
    assert await ask(options, "SELECT sum(number) FROM kept") == 3


def test_a_server_that_already_runs_on_the_data_is_taken_over(
    options: postgres.PostgresOptions,
) -> None:
    first = run(options)

    assert run(options) == first


def test_a_lock_file_with_an_unrelated_process_is_ignored(
    options: postgres.PostgresOptions,
) -> None:
    postgres.initialise(options)
    lock = options.place.data / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{options.place.data}\n0\n{options.port}\n\n\n\nready\n")

    assert postgres.running_server(options.place) is None
    lock.unlink()


def test_a_server_that_cannot_start_says_why_in_one_line(
    options: postgres.PostgresOptions,
) -> None:
    postgres.initialise(options)
    (options.place.data / "PG_VERSION").write_text("9\n")
    process = postgres.start(options)

    with pytest.raises(StackError, match=r"PostgreSQL did not start: .*FATAL.*incompatible"):
        postgres.wait_until_ready(options, process)


def test_a_half_made_data_folder_is_created_again(options: postgres.PostgresOptions) -> None:
    scratch = options.place.parent / "data.new"
    scratch.mkdir()
    (scratch / "PG_VERSION").write_text("18\n")

    assert postgres.initialise(options)
    assert not scratch.exists()


async def test_messages_outlive_a_crash_of_nats(nats_options: nats.NatsOptions) -> None:
    process = nats.start(nats_options)
    nats.wait_until_ready(nats_options, process)
    connection = await nats_client.connect(nats_options.url)
    jetstream = connection.jetstream()
    await jetstream.add_stream(name="KEPT", subjects=["kept.>"])
    await jetstream.publish("kept.one", b"1")
    await connection.close()
    stop(process, signals=((signal.SIGKILL, 5.0),))

    again = nats.start(nats_options)
    try:
        nats.wait_until_ready(nats_options, again)
        connection = await nats_client.connect(nats_options.url)
        found = await connection.jetstream().stream_info("KEPT")
        await connection.close()
        assert found.state.messages == 1
    finally:
        nats.stop_server(again)
    assert wait_until(lambda: not is_alive(again), timeout_s=5)


def test_nats_asks_for_the_password(nats_options: nats.NatsOptions) -> None:
    process = nats.start(nats_options)
    try:
        nats.wait_until_ready(nats_options, process)
        assert nats_options.config_file.stat().st_mode & 0o077 == 0
        with socket.create_connection(("127.0.0.1", nats_options.port), timeout=10) as client:
            client.sendall(b"CONNECT {}\r\nPING\r\n")
            answers = b"".join(iter(lambda: client.recv(4096), b""))
    finally:
        nats.stop_server(process)
    assert b"Authorization Violation" in answers
    assert b"PONG" not in answers
