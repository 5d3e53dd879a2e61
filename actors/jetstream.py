"""The event stream in NATS JetStream: ordered publishing, one acknowledgement for many messages.

A publish is a *fast batch* (server 2.14 and later) that may have no gaps: the server stores its
messages in order as they come, and at the first that fails it ends the batch. So a message never
overtakes an earlier one, and one acknowledgement serves up to 1,000 messages. A message whose id
the stream has is left out. What a batch is, the server reads from each message's reply subject:
``<inbox>.<batch>.<acknowledge every>.fail.<number>.<operation>.$FI``.

A connection that broke is never taken up again: whatever its client had still to send is gone
with it, and `prepare` makes a new one, with a number of its own.

A stream that is made, or filled again, is *shut*: it listens on the subjects of filling alone, and
stores what comes there under the subjects of events. So nobody's live events get in before it has
all of the journal, whether or not they know that the stream is another one.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from uuid import uuid4

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js.api import StorageType, StreamConfig, StreamInfo, SubjectTransform
from nats.js.errors import NotFoundError

from actors.ports import Message, PublishFailed
from wallet.event_codec import SUBJECT_ROOT

_log = structlog.get_logger(__name__)

_START, _APPEND, _COMMIT = range(3)
"""What a message is to its batch."""

_LIVE: Final = f"{SUBJECT_ROOT}.>"
_FILLING_ROOT: Final = "wallet.filling"
_FILLING: Final = f"{_FILLING_ROOT}.>"


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the stream is made; see the settings of the same names for their reasons."""

    url: str
    name: str
    max_age_s: float
    duplicate_window_s: float
    replicas: int
    publish_timeout_s: float


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """What comes to a batch's inbox: an acknowledgement, or (with a ``type``) how it goes."""

    type: str = ""
    error: _Error | None = None
    seq: int = 0
    count: int = 1
    duplicate: bool = False


_answer: Final = msgspec.json.Decoder(_Answer)

_GOES_WELL: Final = "ack"

_NOBODY: Final = _Answer(type="nobody", error=_Error(code=503, description="no responders"))
"""The stream is gone, or shut: nobody listens on these subjects."""


def _filling(subject: str) -> str:
    return _FILLING_ROOT + subject.removeprefix(SUBJECT_ROOT)


class _Client(Client):  # type: ignore[misc]  # it comes without types
    """The library's client, which can also send the messages of a batch as one piece.

    Its ``publish`` looks at each header's name and value and at its own state, message by message;
    a shard spent a sixth of its time there when a wallet's events came by the thousand.
    """

    async def publish_as_one(self, messages: Sequence[Message], replies: Iterable[str]) -> None:
        """Send ``messages`` in order, each with its reply subject.

        Raises:
            MaxPayloadError: one is too large for the server; nothing was sent.
        """
        if any(len(message.payload) > self.max_payload for message in messages):
            raise MaxPayloadError
        commands = b"".join(
            _command(message, reply) for message, reply in zip(messages, replies, strict=True)
        )
        await self._send_command(commands)
        await self._flush_pending()


def _command(message: Message, reply: str) -> bytes:
    """``message`` as the protocol of NATS has it. Nothing in its first lines is a client's word."""
    trace = f"traceparent: {message.trace}\r\n" if message.trace is not None else ""
    headers = f"NATS/1.0\r\nNats-Msg-Id: {message.id}\r\n{trace}\r\n"
    sizes = f"{len(headers)} {len(headers) + len(message.payload)}"
    first = f"HPUB {message.subject} {reply} {sizes}\r\n{headers}"
    return b"%b%b\r\n" % (first.encode(), message.payload)


async def connect(url: str, *, name: str) -> _Client:
    """A connection that ends when it breaks, and fails calls from then on.

    Raises:
        OSError, nats.errors.Error: no server could be reached.
    """
    client = _Client()
    await client.connect(
        url,
        name=name,
        allow_reconnect=False,
        ping_interval=5,
        max_outstanding_pings=2,
        # Our subjects are made of ids and words of our own.
        skip_subject_validation=True,
        error_cb=_note_error,
    )
    return client


async def _note_error(error: Exception) -> None:
    _log.warning("nats", error=f"{type(error).__name__}: {error}")


async def ensure_stream(client: Client, options: StreamOptions) -> str:
    """Make the stream, shut, if it isn't there, or bring its limits up to date.

    Returns when it was created: a stream that was deleted and made again is another one.
    """
    jetstream = client.jetstream(timeout=options.publish_timeout_s)
    try:
        info = await jetstream.stream_info(options.name)
    except NotFoundError:
        _log.warning("stream created", stream=options.name)
        return str((await jetstream.add_stream(_config(options, shut=True))).created)
    wanted = _config(options, shut=_is_shut(info))
    if _limits_of(info.config) != _limits_of(wanted):
        info = await jetstream.update_stream(wanted)
    return str(info.created)


def _is_shut(info: StreamInfo) -> bool:
    return _LIVE not in (info.config.subjects or ())


def _config(options: StreamOptions, *, shut: bool) -> StreamConfig:
    return StreamConfig(
        name=options.name,
        subjects=[_FILLING if shut else _LIVE],
        subject_transform=SubjectTransform(src=_FILLING, dest=_LIVE) if shut else None,
        storage=StorageType.FILE,
        num_replicas=options.replicas,
        max_age=options.max_age_s,
        duplicate_window=options.duplicate_window_s,
        allow_batched=True,
        description="Events of the wallet service: version order per wallet.",
    )


def _limits_of(config: StreamConfig) -> tuple[object, ...]:
    """What settings decide."""
    age, window = config.max_age or 0, config.duplicate_window or 0
    return (config.num_replicas, age, window, config.allow_batched, config.description)


class JetStream:
    """Implements `EventStream`. Connects in `prepare`, and nowhere else."""

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._client: _Client | None = None
        self._connecting = asyncio.Lock()
        self.connection = 0
        self._inbox = ""
        self._batch = ""
        """The batch under way: what else comes to the inbox is about one that was given up."""
        self._answers: asyncio.Queue[_Answer] = asyncio.Queue()
        self._last_sequence = 0
        self._incarnation = ""

    async def prepare(self) -> str:
        try:
            created = await ensure_stream(await self._connected(), self._options)
        except (NatsError, OSError, TimeoutError) as failure:
            raise PublishFailed(f"{type(failure).__name__}: {failure}") from failure
        if created != self._incarnation:
            self._incarnation, self._last_sequence = created, 0
        return created

    async def shut(self) -> None:
        await self._listen(shut=True, incarnation=None)

    async def open(self, incarnation: str | None) -> None:
        await self._listen(shut=False, incarnation=incarnation)

    async def _listen(self, *, shut: bool, incarnation: str | None) -> None:
        try:
            client = await self._connected()
            jetstream = client.jetstream(timeout=self._options.publish_timeout_s)
            info = await jetstream.stream_info(self._options.name)
            if incarnation is not None and str(info.created) != incarnation:
                raise PublishFailed("the stream is another one by now")
            if _is_shut(info) != shut:
                await jetstream.update_stream(_config(self._options, shut=shut))
        except (NatsError, OSError, TimeoutError) as failure:
            raise PublishFailed(f"{type(failure).__name__}: {failure}") from failure

    async def publish(
        self, messages: Sequence[Message], *, connection: int, filling: bool = False
    ) -> None:
        if filling:
            messages = [one._replace(subject=_filling(one.subject)) for one in messages]
        try:
            async with asyncio.timeout(self._options.publish_timeout_s):
                await self._publish(self._over(connection), messages)
        except (NatsError, OSError, TimeoutError, msgspec.MsgspecError) as failure:
            raise PublishFailed(f"{type(failure).__name__}: {failure}") from failure

    async def answers(self, *, connection: int) -> None:
        try:
            await self._over(connection).flush(self._options.publish_timeout_s)
        except (NatsError, OSError, TimeoutError) as failure:
            raise PublishFailed(f"{type(failure).__name__}: {failure}") from failure

    @property
    def connected(self) -> bool:
        """Whether NATS is reachable as far as the client knows (it pings every 5 s)."""
        return self._client is not None and self._client.is_connected

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> _Client:
        async with self._connecting:
            if self._client is None or not self._client.is_connected:
                client = await connect(self._options.url, name="wallet-relay")
                self._inbox = client.new_inbox()
                await client.subscribe(f"{self._inbox}.>", cb=self._take_answer)
                self._client = client
                self.connection += 1
                self._last_sequence = 0  # It may have lost its last messages with its power.
            return self._client

    def _over(self, connection: int) -> _Client:
        if self._client is None or connection != self.connection:
            raise PublishFailed("not over this connection")
        if not self._client.is_connected:
            raise PublishFailed("not connected to NATS")
        return self._client

    async def _publish(self, client: _Client, messages: Sequence[Message]) -> None:
        self._batch, self._answers = uuid4().hex, asyncio.Queue()
        count = len(messages)
        await client.publish_as_one(messages, self._replies(count))
        answer = await self._acknowledged()
        if answer.error is not None or answer.type or answer.count != count:
            _log.error("publish refused", answer=msgspec.to_builtins(answer), messages=count)
            raise PublishFailed(f"the stream took less than {count} messages: {answer}")
        # Zero: it had all of them.
        if answer.seq and not answer.duplicate:
            self._note_sequence(answer.seq)

    def _replies(self, count: int) -> Iterator[str]:
        """The reply subjects of the batch's ``count`` messages."""
        batch = f"{self._inbox}.{self._batch}.{count}.fail"
        for number in range(1, count + 1):
            operation = _COMMIT if number == count else _START if number == 1 else _APPEND
            yield f"{batch}.{number}.{operation}.$FI"

    async def _acknowledged(self) -> _Answer:
        """The first answer that says how the batch ended."""
        while (answer := await self._answers.get()).type == _GOES_WELL:
            pass
        return answer

    async def _take_answer(self, message: Msg) -> None:
        if message.subject.startswith(f"{self._inbox}.{self._batch}."):
            self._answers.put_nowait(_answer.decode(message.data) if message.data else _NOBODY)

    def _note_sequence(self, sequence: int) -> None:
        before, self._last_sequence = self._last_sequence, sequence
        if sequence <= before:
            # Somebody deleted it and somebody else made it again, all unnoticed by us.
            raise PublishFailed(f"the stream began anew: {before} was followed by {sequence}")
