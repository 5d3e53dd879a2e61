"""The event stream in NATS JetStream: ordered, all-or-nothing publishing.

A publish is an *atomic batch* (server 2.12 and later): either all its messages are stored, in
order, or none. So a message never overtakes an earlier one, and one acknowledgement serves up to
1,000 messages. A batch that repeats a message id is refused whole; then its messages go one
by one, and the server drops the ones that it has.

A stream that is made, or filled again, is *shut*: it listens on the subjects of filling alone, and
stores what comes there under the subjects of events. So nobody's live events get in before it has
all of the journal, whether or not they know that the stream is another one.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

import msgspec
import nats
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import StorageType, StreamConfig, StreamInfo, SubjectTransform
from nats.js.errors import NotFoundError

from actors.ports import Message, PublishFailed
from wallet.event_codec import SUBJECT_ROOT

_log = structlog.get_logger(__name__)

_DUPLICATE_IN_BATCH: Final = 10201

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


class _Acknowledgement(msgspec.Struct):
    error: _Error | None = None
    seq: int = 0
    duplicate: bool = False


_acknowledgement: Final = msgspec.json.Decoder(_Acknowledgement)


def _filling(subject: str) -> str:
    return _FILLING_ROOT + subject.removeprefix(SUBJECT_ROOT)


async def connect(url: str, *, name: str) -> Client:
    """A connection that never gives up reconnecting, and fails calls meanwhile.

    Raises:
        OSError, nats.errors.Error: the first attempt failed.
    """
    return await nats.connect(
        url,
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.25,
        ping_interval=5,
        max_outstanding_pings=2,
        error_cb=_note_error,
    )


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
        allow_atomic=True,
        description="Events of the wallet service: version order per wallet.",
    )


def _limits_of(config: StreamConfig) -> tuple[object, ...]:
    """What settings decide."""
    age, window = config.max_age or 0, config.duplicate_window or 0
    return (config.num_replicas, age, window, config.allow_atomic, config.description)


def _headers(message: Message, batch: dict[str, str]) -> dict[str, str]:
    headers = {"Nats-Msg-Id": message.id, **batch}
    if message.trace is not None:
        headers["traceparent"] = message.trace
    return headers


class JetStream:
    """Implements `EventStream`. Connects when first needed."""

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._client: Client | None = None
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

    async def publish(self, messages: Sequence[Message], *, filling: bool = False) -> None:
        if filling:
            messages = [one._replace(subject=_filling(one.subject)) for one in messages]
        try:
            client = await self._connected()
            error = await self._publish_atomically(client, messages)
            if error is not None and error.err_code == _DUPLICATE_IN_BATCH:
                error = await self._publish_singly(client, messages)
        except (NatsError, OSError, TimeoutError, msgspec.MsgspecError) as failure:
            raise PublishFailed(f"{type(failure).__name__}: {failure}") from failure
        if error is not None:
            _log.error("publish refused", code=error.err_code, description=error.description)
            raise PublishFailed(f"{error.err_code} {error.description}")

    @property
    def connected(self) -> bool:
        """Whether NATS is reachable as far as the client knows (it pings every 5 s)."""
        return self._client is not None and self._client.is_connected

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> Client:
        if self._client is None:
            self._client = await connect(self._options.url, name="wallet-relay")
        if not self._client.is_connected:
            # Publishing now would only fill a buffer that a later connection sends late.
            raise PublishFailed("not connected to NATS")
        return self._client

    async def _publish_atomically(
        self, client: Client, messages: Sequence[Message]
    ) -> _Error | None:
        if len(messages) == 1:
            return await self._publish_singly(client, messages)
        batch_id = uuid4().hex
        for sequence, message in enumerate(messages[:-1], start=1):
            await client.publish(
                message.subject,
                message.payload,
                headers=_headers(
                    message,
                    {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(sequence)},
                ),
            )
        last = messages[-1]
        headers = {
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(len(messages)),
            "Nats-Batch-Commit": "1",
        }
        return await self._request(client, last, _headers(last, headers))

    async def _publish_singly(self, client: Client, messages: Sequence[Message]) -> _Error | None:
        for message in messages:
            error = await self._request(client, message, _headers(message, {}))
            if error is not None:
                return error
        return None

    async def _request(
        self, client: Client, message: Message, headers: dict[str, Any]
    ) -> _Error | None:
        answer = await client.request(
            message.subject,
            message.payload,
            timeout=self._options.publish_timeout_s,
            headers=headers,
        )
        acknowledgement = _acknowledgement.decode(answer.data)
        if acknowledgement.error is None and not acknowledgement.duplicate:
            self._note_sequence(acknowledgement.seq)
        return acknowledgement.error

    def _note_sequence(self, sequence: int) -> None:
        before, self._last_sequence = self._last_sequence, sequence
        if sequence <= before:
            # Somebody deleted it and somebody else made it again, all unnoticed by us.
            raise PublishFailed(f"the stream began anew: {before} was followed by {sequence}")
