"""Structured logs: one line per event, as JSON or as pretty text.

Fields have the same names everywhere: ``request_id``, ``wallet_id``, ``transfer_id``,
``trace_id``. Secrets are redacted from the rendered line: the passwords and tokens in the settings,
and everything that looks like a password in a URL, a bearer token or an API key.
"""

import logging
import re
from typing import Any, Final, TextIO
from urllib.parse import unquote, urlsplit

import structlog

from runtime.postgres.dsn import PostgresDsn
from runtime.settings import Settings

REDACTED: Final = "***"

_CREDENTIALS: Final = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)|(?<=://)[^\s/@:]{8,}(?=@)")
"""User and password of a URL, or its token."""

_BEARER: Final = re.compile(r"(?i)(?<=bearer )[\w.~+/=-]+")

_API_KEY: Final = re.compile(r"(?<=wk_)([0-9a-f]{16})_[0-9a-f]{64}")
"""The key id is public, and names the key to revoke: it is kept."""

_SECRET_LENGTH_MIN: Final = 4
"""Redacting a shorter password would damage ordinary words."""


def configure_logging(settings: Settings, *, to: TextIO | None = None) -> None:
    """Set up structlog for this process. Composition roots call it once.

    ``to``: the output stream; None for standard output.
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
    """Passwords and tokens in the settings' URLs, percent-encoded and decoded."""
    found = set(PostgresDsn.parse(settings.database_url).secrets)
    for url in settings.nats_url.split(","):
        parts = urlsplit(url)
        # A URL with a user and no password holds a token.
        secret = parts.password or parts.username
        found |= {secret or "", unquote(secret or "")}
    return frozenset(secret for secret in found if len(secret) >= _SECRET_LENGTH_MIN)


class SecretRedactor:
    """The last structlog processor: redacts secrets from the rendered line."""

    def __init__(self, secrets: frozenset[str]) -> None:
        self._secrets = secrets

    def __call__(self, _logger: Any, _method: str, line: Any) -> str:
        text = str(line)
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = _BEARER.sub(REDACTED, _CREDENTIALS.sub(REDACTED, text))
        return _API_KEY.sub(rf"\1_{REDACTED}", text)
