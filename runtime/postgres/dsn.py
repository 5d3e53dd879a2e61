"""A Postgres DSN, taken apart once: its hosts, and the rest for the driver.

asyncpg (0.32) reads a DSN as follows, and so does this module. Hosts are in the authority
(`a:1,b:2`, `[::1]:1`) or, if that has none, in `?host=a,b`. A name that begins with `/` is a
socket's directory. `?sslmode=`, `?sslrootcert=`, `?passfile=`, … are the driver's own; unknown
parameters become server settings. Two things differ, and both only accept more: `?port=` also
applies to hosts of the authority that name no port, and IPv6 addresses may stand anywhere in a
list.

An error never quotes the DSN: where a password's `@`, `/`, `?` or `#` is not percent-encoded, any
part of the DSN can be a part of the password.
"""

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

from runtime.postgres.errors import InvalidDsn

_SCHEME: Final = re.compile(r"postgres(ql)?(\+\w+)?")
"""`postgresql+asyncpg` is SQLAlchemy's way to name a driver."""

_PARTS: Final = re.compile(
    r"(?P<scheme>[^:/?#]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(\?(?P<query>[^#]*))?"
)
_HOST: Final = re.compile(r"(\[(?P<ipv6>[^\]]+)\]|(?P<name>[^:\[\]]+))(:(?P<port>\d*))?")
_PORT_MAX: Final = 65_535

_ENCODE: Final = "Special characters in a user or password must be percent-encoded."

_SECRETS: Final = ("password", "sslpassword")


class Host(NamedTuple):
    """One server. ``port`` None: the driver's default (`PGPORT`, else 5432)."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else quote(self.name, safe="")
        return name if self.port is None else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresDsn:
    """``str()`` of it is for display: hosts and database, without user, password and options."""

    hosts: tuple[Host, ...]
    """In the order of the DSN. Empty: the driver's (`PGHOST`, `PGSERVICE`, local sockets)."""
    database: str
    """Empty: the driver's default, which is the user's name."""
    target_session_attrs: str | None
    """As the DSN says; None: it doesn't."""
    without_hosts: str = field(repr=False)
    """The same DSN without hosts and ports: the driver gets them as arguments."""
    secrets: frozenset[str] = field(repr=False)
    """The passwords in it, decoded and as they are written."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take ``text`` apart. An empty one stands for the driver's defaults.

        Raises:
            InvalidDsn: not a URL of Postgres, or a malformed host, port or query.
        """
        parts = _PARTS.fullmatch(text or "postgresql://")
        if "#" in text or (parts is not None and "@" in parts["path"]):
            raise InvalidDsn(f"The DSN has a # or, after its hosts, an @. {_ENCODE}")
        if parts is None or not _SCHEME.fullmatch(parts["scheme"]):
            raise InvalidDsn("The DSN must begin with postgresql:// or postgres://.")
        account, _, listed = parts["authority"].rpartition("@")
        if "@" in account:
            raise InvalidDsn(f"The DSN has more than one @ before its hosts. {_ENCODE}")
        options = _options(parts["query"] or "")
        hosts = _hosts(listed or options.get("host", ""), options.get("port", ""), bool(listed))
        kept = {name: value for name, value in options.items() if name not in ("host", "port")}
        database = unquote(parts["path"].removeprefix("/"))
        return cls(
            hosts=hosts,
            database=database or kept.get("dbname") or kept.get("database") or "",
            target_session_attrs=kept.get("target_session_attrs"),
            without_hosts=f"postgresql://{account + '@' if account else ''}{parts['path']}"
            + (f"?{urlencode(kept)}" if kept else ""),
            secrets=_secrets(account, kept),
        )

    def __str__(self) -> str:
        hosts = ",".join(map(str, self.hosts))
        return f"postgresql://{hosts}/{quote(self.database)}".removesuffix("/")


def _options(query: str) -> dict[str, str]:
    """The query's parameters; of repeated ones the last."""
    try:
        return dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError:
        raise InvalidDsn(f"The DSN's options are not name=value pairs. {_ENCODE}") from None


def _hosts(listed: str, ports: str, encoded: bool) -> tuple[Host, ...]:
    if not listed:
        return ()
    hosts = [_host(text, encoded) for text in listed.split(",")]
    defaults = [_port(text) for text in ports.split(",")] if ports else [None]
    if len(defaults) == 1:
        defaults *= len(hosts)
    if len(defaults) != len(hosts):
        raise InvalidDsn(f"The DSN has {len(hosts)} hosts and {len(defaults)} ports.")
    return tuple(
        host if host.port is not None else host._replace(port=port)
        for host, port in zip(hosts, defaults, strict=True)
    )


def _host(text: str, encoded: bool) -> Host:
    if text.startswith("/"):
        return Host(text)
    found = _HOST.fullmatch(text)
    if found is None:
        raise InvalidDsn(f"A host of the DSN is malformed. {_ENCODE}")
    name = found["ipv6"] or found["name"]
    return Host(unquote(name) if encoded else name, _port(found["port"]) if found["port"] else None)


def _port(text: str) -> int:
    if not (text.isdecimal() and text.isascii() and 0 < int(text) <= _PORT_MAX):
        raise InvalidDsn(f"A port of the DSN is not a number from 1 to {_PORT_MAX}. {_ENCODE}")
    return int(text)


def _secrets(account: str, options: dict[str, str]) -> frozenset[str]:
    written = account.partition(":")[2]
    found = {written, unquote(written)}
    for name in _SECRETS:
        value = options.get(name, "")
        found |= {value, quote(value, safe="")}
    return frozenset(found - {""})
