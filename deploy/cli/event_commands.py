"""What `wallet events …` does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from deploy.cli.stack_commands import running_settings
from deploy.local.errors import StackError
from deploy.local.nats_reader import permissions_text
from deploy.local.servers import nats_options, without_password
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings
from wallet.event_codec import SUBJECT_ROOT
from wallet.ids import canonical_uuid

_CONNECT_S: Final = 5.0
_WAIT_S: Final = 1.0
"""How long one wait for the next event lasts. Then a lost connection is noticed."""

Print = Callable[[str], None]


class TailOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which events, and how they are shown."""

    wallet_id: str = ""
    version: int = 0
    """The first version of ``wallet_id``; 0: not by version."""
    since: datetime | None = None
    as_json: bool = False
    follow: bool = True


class _Transfer(msgspec.Struct):
    """What a line shows of an event's data. Events of wallets have no amount."""

    amount: str = ""
    completed_amount: str = ""
    """Only if a part was completed."""
    type: str = ""
    refunds: str = ""
    """Only of a refund."""
    currency: str = ""
    balance: str = ""
    wallet: dict[str, Any] = {}


class _Event(msgspec.Struct):
    type: str
    subject: str
    time: datetime
    walletversion: int
    data: _Transfer


_decode: Final = msgspec.json.Decoder(_Event).decode


def reader_url(settings: Settings, state_dir: StateDirectory) -> str:
    """The reader's URL of the embedded server.

    Raises:
        StackError: it does not run, or the server is somebody else's.
    """
    if settings.nats_url:
        raise StackError(
            f"NATS at {without_password(settings.nats_url)} is yours: add a user there with what "
            "`wallet events permissions` prints."
        )
    stack = state_dir.load()
    if "nats" not in stack.alive_processes():
        raise StackError("NATS is not running. Start the stack with `wallet up` (make up).")
    return nats_options(state_dir, stack, settings).reader_url


def permissions_of(settings: Settings) -> str:
    """The reader's permissions for the configuration of a server."""
    return permissions_text(settings.stream_name, f"{SUBJECT_ROOT}.>")


def tail_options(wallet: str, start: str, *, as_json: bool, follow: bool) -> TailOptions:
    """Options from what was typed.

    Raises:
        StackError: no id of a wallet, a version without a wallet, or no time.
    """
    wallet_id = canonical_uuid(wallet) if wallet else ""
    if wallet_id is None:
        raise StackError(f"--wallet {wallet!r} is not the id of a wallet.")
    if start.isascii() and start.isdecimal():
        if not wallet_id:
            raise StackError("--from VERSION needs --wallet: each wallet counts its own versions.")
        return TailOptions(wallet_id=wallet_id, version=int(start), as_json=as_json, follow=follow)
    return TailOptions(
        wallet_id=wallet_id,
        since=_time_from(start) if start else None,
        as_json=as_json,
        follow=follow,
    )


def _time_from(text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise StackError(
            f"--from {text!r} is neither a version nor a time such as 2026-11-27T10:00:00Z."
        ) from None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def tail(settings: Settings, state_dir: StateDirectory, options: TailOptions, show: Print) -> None:
    """Print events until interrupted, or until the newest one without ``follow``.

    Raises:
        StackError: NATS can't be reached, refuses the password, or has no stream.
    """
    running = settings if settings.nats_url else running_settings(settings, state_dir)
    asyncio.run(_tail(running.nats_url, settings.stream_name, options, show))


async def _tail(url: str, stream: str, options: TailOptions, show: Print) -> None:
    client = nats.NATS()
    try:
        await client.connect(
            url,
            connect_timeout=_CONNECT_S,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # includes the first attempt, which is otherwise unlimited
            error_cb=_ignore,
        )
    except (OSError, NatsError, TimeoutError) as failure:
        await client.close()  # what it has opened stays open otherwise
        raise StackError(
            f"Can't connect to NATS at {without_password(url)}: {failure}."
        ) from failure
    try:
        async for message in _messages(client, stream, options):
            show(message.data.decode() if options.as_json else line_of(message.data))
    except NotFoundError as failure:
        raise StackError(f"There is no stream {stream} yet: nothing was written.") from failure
    finally:
        await client.close()


async def _messages(client: nats.NATS, stream: str, options: TailOptions) -> AsyncIterator[Msg]:
    """In the stream's order."""
    jetstream = client.jetstream()
    subject = f"{SUBJECT_ROOT}.*.{options.wallet_id or '*'}.>"
    subscription = await jetstream.subscribe(
        subject, stream=stream, ordered_consumer=True, config=_config(options)
    )
    info = await subscription.consumer_info()
    stored = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
    seen = 0
    while options.follow or seen < stored:
        try:
            message = await subscription.next_msg(timeout=_WAIT_S)
        except TimeoutError:
            if client.is_closed:
                raise StackError("The connection to NATS was lost.") from None
            continue
        seen += 1
        if _decode(message.data).walletversion >= options.version:
            yield message


def _config(options: TailOptions) -> ConsumerConfig:
    if options.version:
        return ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    if options.since is not None:
        return ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_TIME,
            opt_start_time=options.since.astimezone(UTC).isoformat(),
        )
    return ConsumerConfig(deliver_policy=DeliverPolicy.NEW if options.follow else DeliverPolicy.ALL)


def line_of(payload: bytes) -> str:
    """An event as one line: time, wallet, version, what happened, and the balance after it."""
    event = _decode(payload)
    data = event.data
    balance = str(data.wallet.get("balance", data.balance))
    what = event.type.removeprefix("transfer.")
    if data.amount:
        part = f"{data.completed_amount} of " if data.completed_amount else ""
        kind = f"refund, {data.type}" if data.refunds else data.type
        what = f"{kind} {part}{data.amount} {what}"
    at = event.time.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]
    return f"{at}  {event.subject}  {event.walletversion:>6}  {what:<26} {balance}"


async def _ignore(_failure: Exception) -> None:
    """Without it the client prints a traceback per attempt; the last failure is raised anyway."""
