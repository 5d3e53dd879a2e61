"""Removes all messages of a stream, together with the server's memory of their ids.

The server remembers the ids of purged messages for the duplicate window, and would drop them when
they are published again. It forgets those older than the window, all in one go, on a timer. A
change of the window lets the timer fire at once. So the window is made short, it passes, and it is
changed again.

Whether the id of the last message is forgotten can be asked without storing anything: the server
looks for a duplicate before it refuses a roll-up, which the stream does not allow. Ids are
forgotten in the order in which they came, so this one is the last.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from nats.js.api import Header, StreamConfig, StreamInfo
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from actors.journal.ports import PublishFailed

_log = structlog.get_logger(__name__)

_SHORTEST_WINDOW_S: Final = 0.1
"""The shortest duplicate window that the server accepts."""
_CHANGED_WINDOW_S: Final = 0.11
_PASSED_S: Final = 0.2
"""Longer than both windows."""
_REMEMBERED_MAX: Final = 100
"""How often the server is asked, a short window apart, before the purge is given up."""
_ROLLUP_REFUSED: Final = 10111
"""Error code of JetStream: the stream does not allow roll-ups."""


async def purge_and_forget(
    jetstream: JetStreamContext, config: Callable[[float], StreamConfig]
) -> None:
    """``config`` makes the stream's configuration with a duplicate window, in seconds.

    Each has a new ingest subject, so nobody publishes to the stream meanwhile. The stream keeps
    the short window: the caller sets its own afterwards.

    Raises:
        PublishFailed: the server does not forget.
    """
    info = await jetstream.update_stream(config(_SHORTEST_WINDOW_S))
    last_id = await _last_id(jetstream, info)
    await jetstream.purge_stream(str(info.config.name))
    await asyncio.sleep(_PASSED_S)
    last = config(_CHANGED_WINDOW_S)
    await jetstream.update_stream(last)
    if last_id:
        await _until_forgotten(jetstream, last, last_id)


async def _last_id(jetstream: JetStreamContext, info: StreamInfo) -> str:
    """Of the last message; empty if there is none, or it has none."""
    if not info.state.messages:
        return ""
    try:
        message = await jetstream.get_msg(str(info.config.name), seq=info.state.last_seq)
    except NotFoundError:
        return ""
    return str((message.headers or {}).get(Header.MSG_ID, ""))


async def _until_forgotten(
    jetstream: JetStreamContext, config: StreamConfig, message_id: str
) -> None:
    subject = (config.subjects or [])[-1].replace(">", "purged")
    for asked in range(_REMEMBERED_MAX):
        if not await _remembers(jetstream, subject, message_id):
            _log.info("purged ids are forgotten", asked=asked + 1)
            return
        await asyncio.sleep(_SHORTEST_WINDOW_S)
    raise PublishFailed("the server does not forget the ids of purged messages")


async def _remembers(jetstream: JetStreamContext, subject: str, message_id: str) -> bool:
    headers = {Header.MSG_ID: message_id, Header.ROLLUP: "all"}
    try:
        ack = await jetstream.publish(subject, headers=headers)
    except APIError as refused:
        if refused.err_code == _ROLLUP_REFUSED:
            return False
        raise
    if not ack.duplicate:
        raise PublishFailed("the stream allows roll-ups")
    return True
