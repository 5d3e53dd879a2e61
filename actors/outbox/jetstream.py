"""The event stream in NATS JetStream: ordered publishing, one acknowledgement for many messages.

A publish is a *fast batch* (server 2.14 and later) without gaps: the server stores its messages in
order as they arrive, and ends the batch at the first that fails. So a message never overtakes an
earlier one, and one acknowledgement covers up to 1,000 messages. A message whose id the stream has
is dropped as a duplicate. The server reads the batch from each message's reply subject:
``<inbox>.<batch>.<acknowledge every>.fail.<number>.<operation>.$FI``.

A broken connection is never reused: its unsent data is lost with it, and `ensure_ready` opens a new
one with a new epoch.

A stream that was deleted and created again is another *incarnation*, and must get the whole journal
before any newer event. NATS has no conditional publish by incarnation. So each incarnation has its
own *ingest subject*, with a random token in it, and a subject transform that stores its messages
under the subjects of events. Once the stream is gone, nothing listens on its ingest subject: what
is sent there late, or by a relay that has not noticed the loss, is not stored. An ingest subject is
never reused. Each configuration update creates a new one, because a delayed update may reach the
next incarnation as well. It is trusted only from a response that also names the incarnation.

A stream that lost messages and is filled again in place becomes another incarnation by the same
means: `begin_fill` gives it an ingest subject that names the fill,
``wallet.relay.<fill>.<random>.>``. Updates of the configuration keep that part.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

import msgspec
import structlog
import uuid6
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import StorageType, StreamConfig, StreamInfo, SubjectTransform
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from actors.journal.ports import Message, PublishFailed, StreamState
from actors.outbox.jetstream_purge import purge_and_forget
from actors.outbox.nats_client import PublishClient, connect
from wallet.event_codec import SUBJECT_ROOT
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_START, _APPEND, _COMMIT = range(3)
"""Operation of a message in its batch."""

_LIVE: Final = f"{SUBJECT_ROOT}.>"
_INGEST_ROOT: Final = "wallet.relay."
"""Common prefix of the ingest subjects of all incarnations."""

_READS_AT_ONCE: Final = 100
"""Requests for last messages that wait for responses at the same time."""


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Stream configuration; see the settings of the same names for their reasons."""

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
    """A message on a batch's inbox: an acknowledgement, or (with a ``type``) progress."""

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
"""The stream is gone: nothing subscribes to its ingest subject."""


class _Incarnation(NamedTuple):
    """A stream from its creation, or the begin of its last fill, to its end."""

    name: str
    ingest_root: str


async def ensure_stream(client: Client, options: StreamOptions) -> tuple[_Incarnation, StreamState]:
    """Create the stream if it doesn't exist, or update its configuration."""
    jetstream = client.jetstream(timeout=options.publish_timeout_s)
    ages: list[float] = []
    try:
        info = await jetstream.stream_info(options.name)
    except NotFoundError:
        info = await jetstream.add_stream(_config(options))
        _log.warning("stream created", stream=options.name)
    else:
        ages.append(info.config.max_age or 0.0)
        requested = _config(options, fill=_fill_of(info.config))
        if _ingest_root_of(info.config) is None or _mutable_config(info.config) != _mutable_config(
            requested
        ):
            info = await jetstream.update_stream(requested)
    return _described(info, ages)


def _described(info: StreamInfo, ages: Sequence[float] = ()) -> tuple[_Incarnation, StreamState]:
    """``ages``: maximum ages of its messages before this response."""
    ingest_root = _ingest_root_of(info.config)
    if ingest_root is None:
        raise PublishFailed("the stream has no ingest subject for relays")
    fill = _fill_of(info.config)
    name = f"{info.created}|{fill}" if fill else str(info.created)
    limits = [age for age in (*ages, info.config.max_age or 0.0) if age]
    state = StreamState(
        name,
        first_sequence=info.state.first_seq,
        last_sequence=info.state.last_seq,
        max_age_s=min(limits, default=0.0),
        evicts=_evicts(info.config),
    )
    return _Incarnation(name, ingest_root), state


def _evicts(config: StreamConfig) -> bool:
    """Whether messages leave the stream for its size: an operator may have limited that."""
    limits = (config.max_msgs, config.max_bytes, config.max_msgs_per_subject)
    return any((limit or 0) > 0 for limit in limits)


def _ingest_root_of(config: StreamConfig) -> str | None:
    ingest = [one for one in config.subjects or () if one.startswith(_INGEST_ROOT)]
    return ingest[0].removesuffix(".>") if ingest else None


def _fill_of(config: StreamConfig) -> str:
    """The fill that the ingest subject names; empty: none."""
    names = (_ingest_root_of(config) or "").removeprefix(_INGEST_ROOT).split(".")
    return names[0] if len(names) > 1 else ""


def _config(options: StreamOptions, *, fill: str = "") -> StreamConfig:
    """The configuration, with a new ingest subject."""
    random = uuid6.uuid7().hex
    ingest_subject = f"{_INGEST_ROOT}{fill}.{random}.>" if fill else f"{_INGEST_ROOT}{random}.>"
    return StreamConfig(
        name=options.name,
        # Relays publish to the ingest subject only. Readers find the stream by the other one.
        subjects=[_LIVE, ingest_subject],
        subject_transform=SubjectTransform(src=ingest_subject, dest=_LIVE),
        storage=StorageType.FILE,
        num_replicas=options.replicas,
        max_age=options.max_age_s,
        duplicate_window=options.duplicate_window_s,
        allow_batched=True,
        description="Events of the wallet service: version order per wallet.",
    )


def _mutable_config(config: StreamConfig) -> tuple[object, ...]:
    """The fields that settings may change."""
    age, window = config.max_age or 0, config.duplicate_window or 0
    return (config.num_replicas, age, window, config.allow_batched, config.description)


@contextmanager
def _failing_as_publish() -> Iterator[None]:
    """Raises errors of the client as `PublishFailed`."""
    try:
        yield
    except (NatsError, OSError, TimeoutError, msgspec.MsgspecError) as failure:
        raise PublishFailed(f"{type(failure).__name__}: {failure}") from failure


class JetStream:
    """Implements `EventStream`. Connects in `ensure_ready` only."""

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._client: PublishClient | None = None
        self._connecting = asyncio.Lock()
        self.connection_epoch = 0
        self._inbox = ""
        self._batch = ""
        """The current batch. Other messages on the inbox belong to an abandoned one."""
        self._answers: asyncio.Queue[_PublishAck] = asyncio.Queue()
        self._last_sequence = 0
        self._incarnation = _Incarnation("", "")

    async def ensure_ready(self) -> StreamState:
        with _failing_as_publish():
            incarnation, state = await ensure_stream(await self._connected(), self._options)
        return self._know(incarnation, state)

    def _know(self, incarnation: _Incarnation, state: StreamState) -> StreamState:
        if incarnation.name != self._incarnation.name:
            self._last_sequence = 0
        self._incarnation = incarnation
        return state

    async def begin_fill(self, label: str, *, connection: int, purge: bool) -> StreamState:
        options = self._options
        fill = f"{label}-{uuid6.uuid7().hex}"
        with _failing_as_publish():
            client = self._client_for(connection)
            jetstream = client.jetstream(timeout=options.publish_timeout_s)
            if purge:
                await purge_and_forget(jetstream, partial(self._purging_config, fill))
            incarnation, state = _described(
                await jetstream.update_stream(_config(options, fill=fill))
            )
        return self._know(incarnation, state)

    def _purging_config(self, fill: str, window_s: float) -> StreamConfig:
        config = _config(self._options, fill=fill)
        config.duplicate_window = window_s
        return config

    async def last_payloads(self, wallet_ids: Sequence[WalletId]) -> Sequence[bytes | None]:
        with _failing_as_publish():
            jetstream = (await self._connected()).jetstream(timeout=self._options.publish_timeout_s)
            payloads: list[bytes | None] = []
            for start in range(0, len(wallet_ids), _READS_AT_ONCE):
                some = wallet_ids[start : start + _READS_AT_ONCE]
                payloads += await asyncio.gather(*(self._last(jetstream, one) for one in some))
        return payloads

    async def _last(self, jetstream: JetStreamContext, wallet_id: WalletId) -> bytes | None:
        subject = f"{SUBJECT_ROOT}.*.{wallet_id}.>"
        try:
            message = await jetstream.get_last_msg(self._options.name, subject)
        except NotFoundError:
            return None
        return message.data or b""

    async def publish(
        self, messages: Sequence[Message], *, connection: int, incarnation: str | None
    ) -> int:
        with _failing_as_publish():
            async with asyncio.timeout(self._options.publish_timeout_s):
                ingest_root = self._ingest_root_of(incarnation)
                client = self._client_for(connection)
                return await self._publish(client, messages, ingest_root)

    async def ping(self, *, connection: int) -> None:
        with _failing_as_publish():
            await self._client_for(connection).flush(self._options.publish_timeout_s)

    @property
    def connected(self) -> bool:
        """Whether the client is connected to NATS (it pings every 5 s)."""
        return self._client is not None and self._client.is_connected

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> PublishClient:
        async with self._connecting:
            if self._client is None or not self._client.is_connected:
                client = await connect(self._options.url, name="wallet-relay")
                self._inbox = client.new_inbox()
                await client.subscribe(f"{self._inbox}.>", cb=self._on_ack)
                self._client = client
                self.connection_epoch += 1
                self._last_sequence = (
                    0  # The server may have lost its last messages with its power.
                )
            return self._client

    def _client_for(self, connection: int) -> PublishClient:
        if self._client is None or connection != self.connection_epoch:
            raise PublishFailed("the connection was replaced")
        if not self._client.is_connected:
            raise PublishFailed("not connected to NATS")
        return self._client

    def _ingest_root_of(self, incarnation: str | None) -> str:
        known = self._incarnation
        if incarnation != known.name:
            raise PublishFailed("the stream was created or filled again")
        return known.ingest_root

    async def _publish(self, client: PublishClient, messages: Sequence[Message], root: str) -> int:
        self._batch, self._answers = uuid6.uuid7().hex, asyncio.Queue()
        count = len(messages)
        await client.publish_many(messages, self._replies(count), root=root)
        answer = await self._acknowledged()
        if answer.error is not None or answer.type or answer.count != count:
            _log.error("publish refused", answer=msgspec.to_builtins(answer), messages=count)
            raise PublishFailed(f"the stream stored fewer than {count} messages: {answer}")
        # Zero: all of them were duplicates.
        if answer.seq and not answer.duplicate:
            self._check_sequence(answer.seq)
        # Duplicates before the last new message are below it.
        return answer.seq or await self._last_sequence_of(client)

    async def _last_sequence_of(self, client: PublishClient) -> int:
        jetstream = client.jetstream(timeout=self._options.publish_timeout_s)
        return int((await jetstream.stream_info(self._options.name)).state.last_seq)

    def _replies(self, count: int) -> Iterator[str]:
        """The reply subjects of the batch's ``count`` messages."""
        batch = f"{self._inbox}.{self._batch}.{count}.fail"
        for number in range(1, count + 1):
            operation = _COMMIT if number == count else _START if number == 1 else _APPEND
            yield f"{batch}.{number}.{operation}.$FI"

    async def _acknowledged(self) -> _PublishAck:
        """The first response that ends the batch."""
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
            # The stream was deleted and created again, and this relay did not notice.
            raise PublishFailed(f"the stream started over: {before} was followed by {sequence}")
