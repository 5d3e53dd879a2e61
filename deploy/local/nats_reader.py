"""The NATS user for consumers of other teams: it reads the events, and changes nothing.

It makes consumers, reads and acknowledges. It can't publish events, purge or delete. It can use any
consumer of the stream whose name it knows: NATS has no permissions by parts of a name. A team that
shall not touch the consumers of another one gets a user with its own names instead of ``*``.
"""

import json
from typing import Any, Final

READER: Final = "reader"

_API: Final = "$JS.API"

_PUBLISHED: Final = (
    "INFO",
    "STREAM.NAMES",
    "STREAM.INFO.{stream}",
    "STREAM.MSG.GET.{stream}",
    "DIRECT.GET.{stream}",
    "DIRECT.GET.{stream}.>",
    "CONSUMER.CREATE.{stream}",
    "CONSUMER.CREATE.{stream}.>",
    "CONSUMER.DURABLE.CREATE.{stream}.*",
    "CONSUMER.INFO.{stream}.*",
    "CONSUMER.NAMES.{stream}",
    "CONSUMER.LIST.{stream}",
    "CONSUMER.MSG.NEXT.{stream}.*",
)
"""Requests to JetStream. Each is a message that the client publishes."""


def reader_permissions(stream: str, subjects: str) -> dict[str, Any]:
    """Permissions of the reader in the server's configuration.

    ``subjects``: of the events, for plain subscriptions.
    """
    requests = [f"{_API}.{request.format(stream=stream)}" for request in _PUBLISHED]
    answers = [f"$JS.ACK.{stream}.>", f"$JS.FC.{stream}.>"]
    return {
        "publish": {"allow": [*requests, *answers]},
        "subscribe": {"allow": ["_INBOX.>", subjects]},
    }


def permissions_text(stream: str, subjects: str) -> str:
    """The permissions as text for a configuration file. NATS reads JSON."""
    return json.dumps(reader_permissions(stream, subjects), indent=2)
