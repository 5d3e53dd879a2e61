"""The event stream in NATS JetStream: ordered publishing, one acknowledgement for many messages.

A publish is a *fast batch* (server 2.14 and later) that may have no gaps: the server stores its
messages in order as they come, and at the first that fails it ends the batch. So a message never
overtakes an earlier one, and one acknowledgement serves up to 1,000 messages. A message whose id
the stream has is left out. What a batch is, the server reads from each message's reply subject:
``<inbox>.<batch>.<acknowledge every>.fail.<number>.<operation>.$FI``.

A connection that broke is never taken up again: whatever its client had still to send is gone
with it, and `prepare` makes a new one, with a number of its own.

A stream that was deleted and made again is another *incarnation*, and must have all of the journal
before anything newer. The server knows no conditional publish by incarnation. So each has an
*entrance* of its own, a subject root with a random word in it, and stores what comes there under
the subjects of events. Nobody listens on the entrance of a stream that is gone: what is sent there,
by whoever does not know of the loss yet, or was on its way, arrives nowhere. An entrance is never
given twice. Each update of the configuration makes a new one, because an update that was on its
way may reach the next incarnation as well. It is believed only as part of an answer that names the
incarnation, too.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog
import uuid6
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js.api import StorageType, StreamConfig, SubjectTransform
from nats.js.errors import NotFoundError

from actors.journal.ports import Message, PublishFailed
from wallet.event_codec import SUBJECT_ROOT

_log = structlog.get_logger(__name__)

_START, _APPEND, _COMMIT = range(3)
"""What a message is to its batch."""

_LIVE: Final = f"{SUBJECT_ROOT}.>"
_INGEST_ROOT: Final = "wallet.relay."
"""What the entrances of all incarnations begin with."""


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


class _PublishAck(msgspec.Struct):
    """What comes to a batch's inbox: an acknowledgement, or (with a ``type``) how it goes."""

    type: str = ""
    error: _Error | None = None
    seq: int = 0
    count: int = 1
    duplicate: bool = False


_ack_decoder: Final = msgspec.json.Decoder(_PublishAck)

_PROGRESS: Final = "ack"

_NO_RESPONDERS: Final = _PublishAck(
    type="nobody", error=_Error(code=503, description="no responders")
)
"""The stream is gone: nobody listens on these subjects."""


class _Client(Client):  # type: ignore[misc]  # it comes without types
    """The library's client, which can also send the messages of a batch as one piece.

    Its ``publish`` looks at each header's name and value and at its own state, message by message;
    a shard spent a sixth of its time there when a wallet's events came by the thousand.
    """

    async def publish_many(
        self, messages: Sequence[Message], replies: Iterable[str], *, root: str = SUBJECT_ROOT
    ) -> None:
        """Send ``messages`` in order under ``root``, each with its reply subject.

        Raises:
            MaxPayloadError: one is too large for the server; nothing was sent.
        """
        if any(len(message.payload) > self.max_payload for message in messages):
            raise MaxPayloadError
        commands = b"".join(
            _encode_publish(message, reply, root)
            for message, reply in zip(messages, replies, strict=True)
        )
        await self._send_command(commands)
        await self._flush_pending()


_ROOT_LENGTH: Final = len(SUBJECT_ROOT)


def _encode_publish(message: Message, reply: str, root: str) -> bytes:
    """``message`` as the protocol of NATS has it. Nothing in its first lines is a client's word."""
    trace = f"traceparent: {message.traceparent}\r\n" if message.traceparent is not None else ""
    headers = f"NATS/1.0\r\nNats-Msg-Id: {message.id}\r\n{trace}\r\n"
    sizes = f"{len(headers)} {len(headers) + len(message.payload)}"
    first = f"HPUB {root}{message.subject[_ROOT_LENGTH:]} {reply} {sizes}\r\n{headers}"
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
        error_cb=_log_error,
    )
    return client


async def _log_error(error: Exception) -> None:
    _log.warning("nats client error", error=f"{type(error).__name__}: {error}")


class _Incarnation(NamedTuple):
    """A stream from its creation to its deletion."""

    created: str
    ingest_root: str


async def ensure_stream(client: Client, options: StreamOptions) -> _Incarnation:
    """Make the stream if it isn't there, or bring its configuration up to date."""
    jetstream = client.jetstream(timeout=options.publish_timeout_s)
    try:
        info = await jetstream.stream_info(options.name)
    except NotFoundError:
        info = await jetstream.add_stream(_config(options))
        _log.warning("stream created", stream=options.name)
    else:
        wanted = _config(options)
        if _ingest_root_of(info.config) is None or _mutable_config(info.config) != _mutable_config(
            wanted
        ):
            info = await jetstream.update_stream(wanted)
    entrance = _ingest_root_of(info.config)
    if entrance is None:
        raise PublishFailed("the stream has no entrance for relays")
    return _Incarnation(str(info.created), entrance)


def _ingest_root_of(config: StreamConfig) -> str | None:
    entrances = [one for one in config.subjects or () if one.startswith(_INGEST_ROOT)]
    return entrances[0].removesuffix(".>") if entrances else None


def _config(options: StreamOptions) -> StreamConfig:
    """The configuration, with an entrance that no stream ever had."""
    entrance = f"{_INGEST_ROOT}{uuid6.uuid7().hex}.>"
    return StreamConfig(
        name=options.name,
        # Relays publish to the entrance alone. The other is how readers find the stream.
        subjects=[_LIVE, entrance],
        subject_transform=SubjectTransform(src=entrance, dest=_LIVE),
        storage=StorageType.FILE,
        num_replicas=options.replicas,
        max_age=options.max_age_s,
        duplicate_window=options.duplicate_window_s,
        allow_batched=True,
        description="Events of the wallet service: version order per wallet.",
    )


def _mutable_config(config: StreamConfig) -> tuple[object, ...]:
    """What settings decide."""
    age, window = config.max_age or 0, config.duplicate_window or 0
    return (config.num_replicas, age, window, config.allow_batched, config.description)


class JetStream:
    """Implements `EventStream`. Connects in `prepare`, and nowhere else."""

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._client: _Client | None = None
        self._connecting = asyncio.Lock()
        self.connection_epoch = 0
        self._inbox = ""
        self._batch = ""
        """The batch under way: what else comes to the inbox is about one that was given up."""
        self._answers: asyncio.Queue[_PublishAck] = asyncio.Queue()
        self._last_sequence = 0
        self._incarnation = _Incarnation("", "")

    async def ensure_ready(self) -> str:
        try:
            incarnation = await ensure_stream(await self._connected(), self._options)
        except (NatsError, OSError, TimeoutError) as failure:
            raise PublishFailed(f"{type(failure).__name__}: {failure}") from failure
        if incarnation.created != self._incarnation.created:
            self._last_sequence = 0
        self._incarnation = incarnation
        return incarnation.created

    async def publish(
        self, messages: Sequence[Message], *, connection: int, incarnation: str | None
    ) -> None:
        try:
            async with asyncio.timeout(self._options.publish_timeout_s):
                entrance = self._ingest_root_of(incarnation)
                await self._publish(self._client_for(connection), messages, entrance)
        except (NatsError, OSError, TimeoutError, msgspec.MsgspecError) as failure:
            raise PublishFailed(f"{type(failure).__name__}: {failure}") from failure

    async def ping(self, *, connection: int) -> None:
        try:
            await self._client_for(connection).flush(self._options.publish_timeout_s)
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
                await client.subscribe(f"{self._inbox}.>", cb=self._on_ack)
                self._client = client
                self.connection_epoch += 1
                self._last_sequence = 0  # It may have lost its last messages with its power.
            return self._client

    def _client_for(self, connection: int) -> _Client:
        if self._client is None or connection != self.connection_epoch:
            raise PublishFailed("not over this connection")
        if not self._client.is_connected:
            raise PublishFailed("not connected to NATS")
        return self._client

    def _ingest_root_of(self, incarnation: str | None) -> str:
        known = self._incarnation
        if incarnation != known.created:
            raise PublishFailed("the stream is another one by now")
        return known.ingest_root

    async def _publish(self, client: _Client, messages: Sequence[Message], root: str) -> None:
        self._batch, self._answers = uuid6.uuid7().hex, asyncio.Queue()
        count = len(messages)
        await client.publish_many(messages, self._replies(count), root=root)
        answer = await self._acknowledged()
        if answer.error is not None or answer.type or answer.count != count:
            _log.error("publish refused", answer=msgspec.to_builtins(answer), messages=count)
            raise PublishFailed(f"the stream took less than {count} messages: {answer}")
        # Zero: it had all of them.
        if answer.seq and not answer.duplicate:
            self._check_sequence(answer.seq)

    def _replies(self, count: int) -> Iterator[str]:
        """The reply subjects of the batch's ``count`` messages."""
        batch = f"{self._inbox}.{self._batch}.{count}.fail"
        for number in range(1, count + 1):
            operation = _COMMIT if number == count else _START if number == 1 else _APPEND
            yield f"{batch}.{number}.{operation}.$FI"

    async def _acknowledged(self) -> _PublishAck:
        """The first answer that says how the batch ended."""
        while (answer := await self._answers.get()).type == _PROGRESS:
            pass
        return answer

    async def _on_ack(self, message: Msg) -> None:
        if message.subject.startswith(f"{self._inbox}.{self._batch}."):
            self._answers.put_nowait(
                _ack_decoder.decode(message.data) if message.data else _NO_RESPONDERS
            )

    def _check_sequence(self, sequence: int) -> None:
        before, self._last_sequence = self._last_sequence, sequence
        if sequence <= before:
            # Somebody deleted it and somebody else made it again, all unnoticed by us.
            raise PublishFailed(f"the stream began anew: {before} was followed by {sequence}")
