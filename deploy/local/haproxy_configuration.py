"""Edits the HAProxy configuration that Ray Serve writes.

Serve writes the file from a template and has no settings for these changes:

- Statistics and metrics listen on every interface without authentication. They are moved to
  loopback.
- There is no time-out for a request's header. One is added, and the same for the body, or as much
  of it as fits into a buffer. NDJSON streams have no body time-out.
- ``option abortonclose`` returns 400 to a client that half-closes its connection while a replica
  processes its request, although the money may have moved by then. It is switched off.
- HAProxy listens and returns 404 before Serve has any route. It must not listen until there is one.
- `GET /healthz` must be about this node, and errors of HAProxy problem documents: see
  `haproxy_health.py`.
- A replica whose machine vanished keeps its connections open for the whole response time-out. The
  kernel ends them after 1.5 to 2 s (`tcp-ut` while data is unacknowledged, keepalive while a
  response is awaited). Checks can't do that: a replica that drains fails them, too, and must finish
  its requests. Streams have a backend without `tcp-ut`: a replica stops reading a stream whose
  client reads no results.

A file that differs from what Ray 2.60 writes is rejected. HAProxy then does not start, and Serve
logs why. Editing only the known parts could leave a port open unnoticed.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.haproxy_health import errorfile_lines, health_backends, health_rules

_FRONT: Final = "frontend http_frontend"
_LOOPBACK_ONLY: Final = ("frontend prometheus", "listen stats")
_OURS: Final = "    # -- added by this service --"
_BIND: Final = re.compile(r"(\s*bind )(?:\*|127\.0\.0\.1)?:(\d+)")
_OVERRIDES: Final = re.compile(
    r"\s*(option abortonclose|errorfile"
    r"|timeout (client|connect|check|http-request|http-keep-alive)) ?.*"
)
_ROUTE: Final = re.compile(r"    use_backend (\S+) if is_\1")
_HEALTHY: Final = re.compile(r"\s*http-request return status 200 .* if healthcheck( .*)?")
_BUSY_S: Final = 2
"""How long a replica may take to respond to a check."""
_CONNECT_MS: Final = 500
"""For a connection to a replica, which its kernel accepts. Then another replica is tried: nothing
was delivered. Serve's setting has whole seconds only."""
_UNACKNOWLEDGED_MS: Final = 1_500
"""How long a replica's machine may acknowledge nothing: three or four retransmissions."""
_OF_CHECKS: Final = re.compile(r"\s*(default-server|option httpchk|http-check) ")
_STREAM_PATH: Final = "/v1/transfers/batch"
_STREAMS: Final = "-streams"
"""Suffix of the backend for streams."""

_Section = tuple[str, list[str]]


class UnknownConfiguration(Exception):
    """The file differs from what Ray 2.60 writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """Client time-outs, in seconds."""

    header_s: int
    """From the connection, or the first byte of a later request, to the end of the header; and
    from there to the end of the body, or of its first 16 KB."""
    idle_s: int
    """Between two requests on a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The edited configurations."""

    text: str
    """For the process that Serve starts."""
    standby: str | None
    """The same routes without HAProxy's own ports and admin socket; None without routes."""


def prepared(text: str, timeouts: ClientTimeouts, pages: Path) -> Prepared:
    """Edit ``text`` for HAProxy. Idempotent. ``pages``: the folder of `haproxy_health.write_pages`.

    Raises:
        UnknownConfiguration: ``text`` differs from what Ray 2.60 writes.
    """
    sections = _sections(text)
    _check_names(sections)
    routes = _routes(dict(sections)[_FRONT])
    has_routes = bool(routes)
    if _OURS not in text.splitlines():
        sections = [_changed(section, timeouts, pages, listens=has_routes) for section in sections]
        if routes:
            sections = _with_node_health(sections, routes[-1])
    return Prepared(text=_joined(sections), standby=_standby(sections) if has_routes else None)


def _sections(text: str) -> list[_Section]:
    """Each section's first line, and the lines below it."""
    sections: list[_Section] = []
    for line in text.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            sections.append((line.strip(), []))
        elif sections:
            sections[-1][1].append(line)
        elif line.strip():
            raise UnknownConfiguration(f"{line.strip()!r} is outside of any section")
    return sections


def _joined(sections: list[_Section]) -> str:
    return "".join(f"{line}\n" for head, lines in sections for line in (head, *lines))


def _check_names(sections: list[_Section]) -> None:
    heads = [head for head, _ in sections]
    for known in ("global", "defaults", _FRONT, *_LOOPBACK_ONLY):
        if heads.count(known) != 1:
            raise UnknownConfiguration(
                f"expected one section {known!r}, found {heads.count(known)}"
            )
    for head in heads:
        if head.split()[0] not in ("global", "defaults", "frontend", "backend", "listen"):
            raise UnknownConfiguration(f"unexpected section {head!r}")


def _routes(front: list[str]) -> list[str]:
    """The applications' backends: that of the shortest path is the last."""
    return [found[1] for line in front if (found := _ROUTE.fullmatch(line))]


def _with_node_health(sections: list[_Section], backend: str) -> list[_Section]:
    """With `haproxy_health`'s rules and backends. ``backend``: the API's."""
    changed: list[_Section] = []
    for head, lines in sections:
        if head == _FRONT:
            drains = not any(_HEALTHY.fullmatch(line) for line in lines)
            lines = [*health_rules(backend, drains=drains), *_with_stream_rule(lines, backend)]
        changed.append((head, lines))
        if head == f"backend {backend}":
            changed += [*health_backends(backend, lines), _stream_backend(backend, lines)]
    if len(changed) == len(sections):
        raise UnknownConfiguration(f"no section 'backend {backend}'")
    return changed


def _with_stream_rule(lines: list[str], backend: str) -> list[str]:
    """The frontend's lines with a route for streams before Serve's routes."""
    first = next(number for number, line in enumerate(lines) if _ROUTE.fullmatch(line))
    rule = f"    use_backend {backend}{_STREAMS} if {{ path {_STREAM_PATH} }}"
    return [*lines[:first], rule, *lines[first:]]


def _stream_backend(backend: str, lines: list[str]) -> _Section:
    """The API's backend for streams, which a replica may stop reading for as long as it likes.

    `tcp-ut` also counts the time in which the receiver takes no data.
    """
    return f"backend {backend}{_STREAMS}", [
        _without_user_timeout(line, backend) if line.startswith("    server ") else line
        for line in lines
        if not _OF_CHECKS.match(line)
    ]


def _without_user_timeout(line: str, backend: str) -> str:
    """The server without checks of its own: it has the state of the one in Serve's backend."""
    _, name, address, *options = line.split()
    backup = " backup" if "backup" in options else ""
    return f"    server {name} {address}{backup} track {backend}/{name}"


def _changed(
    section: _Section, timeouts: ClientTimeouts, pages: Path, *, listens: bool
) -> _Section:
    head, lines = section
    if head == "defaults":
        return head, _with_ours(lines, timeouts, pages)
    if overriding := [line for line in lines if _OVERRIDES.fullmatch(line)]:
        raise UnknownConfiguration(f"unexpected {overriding[0].strip()!r} in {head!r}")
    if head in _LOOPBACK_ONLY:
        lines = [_on_loopback(head, line) if _is_bind(line) else line for line in lines]
    binds = sum(_is_bind(line) for line in lines)
    if binds != (1 if head in (_FRONT, *_LOOPBACK_ONLY) else 0):
        raise UnknownConfiguration(f"unexpected number of binds in {head!r}: {binds}")
    if head == _FRONT:
        lines = [*_front_rules(timeouts), *lines]
    if head.startswith("backend "):
        lines = [_with_user_timeout(line) for line in lines]
    return head, lines if listens else [line for line in lines if not _is_bind(line)]


def _with_ours(lines: list[str], timeouts: ClientTimeouts, pages: Path) -> list[str]:
    """The defaults with this service's lines at the end, so that they override earlier ones."""
    if sum(line.strip().startswith("errorfile ") for line in lines) != len(errorfile_lines(pages)):
        raise UnknownConfiguration("unexpected number of error files in the defaults")
    if not any(re.fullmatch(r"\s*timeout client \d+s\s*", line) for line in lines):
        raise UnknownConfiguration("no 'timeout client' in the defaults")
    return [
        *lines,
        _OURS,
        f"    timeout http-request {timeouts.header_s}s",
        f"    timeout http-keep-alive {timeouts.idle_s}s",
        "    no option abortonclose",
        *errorfile_lines(pages),
        f"    timeout connect {_CONNECT_MS}ms",
        f"    timeout check {_BUSY_S}s",
        "    option srvtcpka",
        "    srvtcpka-idle 1s",
        "    srvtcpka-intvl 1s",
        "    srvtcpka-cnt 1",
    ]


def _front_rules(timeouts: ClientTimeouts) -> list[str]:
    stream = "{ req.hdr(content-type) -m sub ndjson }"
    return [
        _OURS,
        f"    http-request wait-for-body time {timeouts.header_s}s if METH_POST !{stream}",
        f"    http-request wait-for-body time {timeouts.header_s}s if {{ method PATCH }}",
    ]


def _with_user_timeout(line: str) -> str:
    """HAProxy doesn't inherit this option of a server from ``default-server``."""
    return f"{line} tcp-ut {_UNACKNOWLEDGED_MS}ms" if line.startswith("    server ") else line


def _is_bind(line: str) -> bool:
    return line.split(maxsplit=1)[:1] == ["bind"]


def _on_loopback(head: str, line: str) -> str:
    found = _BIND.fullmatch(line.rstrip())
    if found is None:
        raise UnknownConfiguration(f"unexpected {line.strip()!r} in {head!r}")
    return f"{found[1]}127.0.0.1:{found[2]}"


def _standby(sections: list[_Section]) -> str:
    kept = [
        (head, [line for line in lines if not line.strip().startswith("stats socket")])
        for head, lines in sections
        if head not in _LOOPBACK_ONLY
    ]
    return _joined(kept)
