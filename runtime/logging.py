"""Logs: structured, one line an event, JSON for machines or pretty for a person.

What a line is about stands in fields of the same names everywhere: ``request_id``, ``wallet_id``,
``transfer_id``, ``trace_id``. No line holds a secret: what the settings say is secret, and what
looks like a password in a URL or like an API key, is struck out of the finished line.
"""

import logging
import re
from typing import Any, Final, TextIO
from urllib.parse import unquote, urlsplit

import structlog

from runtime.settings import Settings

REDACTED: Final = "***"

_CREDENTIALS: Final = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)|(?<=://)[^\s/@:]{8,}(?=@)")
"""The user and password of a URL, or its token."""

_BEARER: Final = re.compile(r"(?i)(?<=bearer )[\w.~+/=-]+")

_API_KEY: Final = re.compile(r"(?<=wk_)([0-9a-f]{16})_[0-9a-f]{64}")
"""Its first half is public, and says which key to revoke."""

_SECRET_LENGTH_MIN: Final = 4
"""A shorter password would strike out innocent words."""


def configure_logging(settings: Settings, *, to: TextIO | None = None) -> None:
    """Set up structlog for this process. Called by composition roots, once.

    ``to``: where lines go; None for the standard output.
    """
    level = logging.getLevelNamesMapping()[settings.log_level]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
            SecretRedactor(secrets_in(settings)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(to),
        cache_logger_on_first_use=True,
    )


def secrets_in(settings: Settings) -> frozenset[str]:
    """The passwords and tokens in the settings' addresses, as they are written and as they are."""
    found: set[str] = set()
    for url in (settings.database_url, *settings.nats_url.split(",")):
        parts = urlsplit(url)
        # A NATS URL with a user and no password holds a token.
        secret = parts.password or ("" if parts.scheme.startswith("postgres") else parts.username)
        found |= {secret or "", unquote(secret or "")}
    return frozenset(secret for secret in found if len(secret) >= _SECRET_LENGTH_MIN)


class SecretRedactor:
    """The last processor: strikes secrets out of the finished line."""

    def __init__(self, secrets: frozenset[str]) -> None:
        self._secrets = secrets

    def __call__(self, _logger: Any, _method: str, line: Any) -> str:
        text = str(line)
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = _BEARER.sub(REDACTED, _CREDENTIALS.sub(REDACTED, text))
        return _API_KEY.sub(rf"\1_{REDACTED}", text)
