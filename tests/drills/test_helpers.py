"""The parts of drills do what drills rely on. Runs with every test run."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.chaos.clients import IMPATIENT
from tests.drills.drill import back_s, silent_s
from tests.drills.filesystems import LimitedDisk, unavailable_reason, unmount_all
from tests.drills.outside_consumer import Belief, Seen
from tests.drills.recovery import Loss, LostEvent
from tests.drills.results import DrillResult, Target
from tests.drills.tcp_link import tcp_link
from verification.facts import ClientCall, Operation, Outcome

S = 10**9


def call(
    started_s: float,
    ended_s: float,
    outcome: Outcome = "acknowledged",
    *,
    operation: Operation = "debit",
    code: str = "",
    wallet_id: str = "w",
    version: int = 0,
    operation_id: str = "o",
    transfer_id: str = "",
) -> ClientCall:
    return ClientCall(
        operation_id=operation_id,
        transfer_id=transfer_id,
        operation=operation,
        started=int(started_s * S),
        ended=int(ended_s * S),
        outcome=outcome,
        code=code,
        wallet_id=wallet_id,
        version=version,
    )


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "back"),
    [
        ([call(11, 12), call(12, 13)], 2.0),
        ([call(11, 12), call(13, 14, "not_applied", code="unavailable")], 4.0),
        ([call(11, 12), call(8, 15, "unknown", code="deadline_exceeded")], 5.0),
        ([call(11, 12), call(8, 15, "refused", code="insufficient_funds")], 5.0),
        ([call(11, 12), call(13, 14, "unknown", code=IMPATIENT)], 2.0),
        ([call(11, 12), call(13, 14, "refused", code="insufficient_funds")], 2.0),
        ([call(11, 12, operation="read")], None),
        ([call(8, 9)], None),
    ],
)
def test_the_service_is_back_after_the_last_error_and_a_first_write(
    history: list[ClientCall], back: float | None
) -> None:
    assert back_s(history, 10 * S) == back


def test_the_longest_silence_is_between_two_acknowledged_writes() -> None:
    history = [call(0, 11), call(0, 14.5, "not_applied"), call(0, 15), call(0, 16)]
    assert silent_s(history, 10 * S, 17 * S) == 4.0
    assert silent_s([], 10 * S, 17 * S) == 7.0


def test_a_missed_target_stands_in_the_table() -> None:
    result = DrillResult(
        name="n",
        what="w",
        target=Target(back_s=1.5),
        writes=1_000,
        errors=Counter({"503 unavailable, not applied": 2}),
        longest_s=1.0,
        silent_s=2.0,
        back_s=None,
        all_wallets_s=3.0,
        lost=0,
        violations=[],
        missed=["not back in time"],
    )
    assert result.cells() == (
        "n",
        "1,000",
        "2 × 503 unavailable, not applied",
        "2.0 s",
        "never",
        "3.0 s",
        "0",
        "0",
        "back ≤ 1.5 s: missed: not back in time",
    )


def test_only_what_rests_on_a_lost_event_is_void() -> None:
    loss = Loss([LostEvent("w", 7, "t")], 10 * S)

    assert loss.is_void(call(8, 9, version=7))
    assert loss.is_void(call(8, 9, "refused"))
    assert not loss.is_void(call(8, 9, version=6)), "an earlier version was kept"
    assert not loss.is_void(call(8, 11, version=7)), "answered after the promotion"
    assert not loss.is_void(call(8, 9, version=7, wallet_id="other"))


def test_a_repeated_settlement_writes_no_event_and_may_be_void() -> None:
    first = call(6, 7, operation="revert", version=4, operation_id="a", transfer_id="t")
    again = call(8, 9, operation="revert", version=6, operation_id="b", transfer_id="t")
    loss = Loss([LostEvent("w", 7, "t2")], 10 * S, [again, first])

    assert loss.is_void(again)
    assert not loss.is_void(first), "its event and its key were kept"


# -- the outside consumer --------------------------------------------------------------------------


def deliver(belief: Belief, version: int, kind: str = "wallet.created", rewound: int = 0) -> None:
    balances = {"balance": "0", "pending_debit": "0", "pending_credit": "0"}
    event = {
        "id": f"w:{version}",
        "type": kind,
        "subject": "w",
        "walletversion": version,
        "data": {"id": "w", "version": version, "common_version": rewound} | balances,
    }
    seen = Seen(0, version, f"w:{version}", kind, "w", version)
    belief.add(seen, "wallet.events.0", json.dumps(event).encode())


def test_a_consumer_drops_what_it_has_by_version() -> None:
    belief = Belief()
    for version in (1, 2, 1, 2, 3):
        deliver(belief, version)

    assert [one.event.version for one in belief.messages()] == [1, 2, 3]
    assert belief.duplicates == 2
    assert belief.gaps == []


def test_a_consumer_notes_a_gap_and_takes_what_closes_it() -> None:
    belief = Belief()
    for version in (1, 3, 1, 2, 3):
        deliver(belief, version)

    assert [one.event.version for one in belief.messages()] == [1, 2, 3]
    assert [one.version for one in belief.gaps] == [3]


def test_a_consumer_forgets_what_was_rewound() -> None:
    belief = Belief()
    for version in (1, 2, 3):
        deliver(belief, version)
    deliver(belief, 2, "wallet.rewound", rewound=1)
    deliver(belief, 2)

    assert [one.event.version for one in belief.messages()] == [1, 2]
    assert [one.event.version for one in belief.forgotten] == [2, 3]
    assert belief.rewound == ["w"]


# -- the network and the disk ----------------------------------------------------------------------


async def test_a_stalled_link_keeps_what_is_sent_until_it_flows_again() -> None:
    async with _echo_server() as port:
        with tcp_link(port) as link:
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            writer.write(b"1")
            assert await reader.readexactly(1) == b"1"
            link.stall()
            writer.write(b"2")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 0.2)
            link.resume()
            assert await reader.readexactly(1) == b"2"
            await _close(writer)


async def test_a_cut_link_loses_what_waited_and_leads_elsewhere() -> None:
    async with _echo_server() as port, _echo_server(b"other") as other:
        with tcp_link(port) as link:
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            writer.write(b"0")
            assert await reader.readexactly(1) == b"0", "the link has the connection"
            link.stall()
            writer.write(b"1")
            await asyncio.to_thread(link.lead_to, other)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(1)
            await _close(writer)

            link.resume()
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            writer.write(b"1")
            assert await reader.readexactly(6) == b"other1"
            await _close(writer)


@pytest.mark.skipif(bool(unavailable_reason()), reason=str(unavailable_reason()))
def test_a_full_disk_takes_nothing_until_it_is_freed(tmp_path: Path) -> None:
    disk = LimitedDisk(tmp_path / "disk", megabytes=1)
    try:
        assert disk.fill() > 0
        with pytest.raises(OSError, match="No space left on device"):
            (disk.folder / "more").write_bytes(bytes(100_000))
        disk.free()
        (disk.folder / "more").write_bytes(bytes(100_000))
    finally:
        unmount_all(tmp_path)
    assert not (tmp_path / "disk" / "more").exists(), "it is unmounted"


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def _echo_server(greeting: bytes = b"") -> AsyncIterator[int]:
    """Its port. Ends once it has closed its connections."""
    handlers: set[asyncio.Task[None]] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        with suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(greeting + data)
        await _close(writer)

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*handlers)
