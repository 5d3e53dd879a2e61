"""Edits the HAProxy configuration that Ray Serve writes.

Serve writes the file from a template and has no settings for these changes:

- Statistics and metrics listen on every interface without authentication. They are moved to
  loopback.
- There is no time-out for a request's header. One is added, and the same for the body, or as much
  of it as fits into a buffer. NDJSON streams have no body time-out.
- ``option abortonclose`` returns 400 to a client that half-closes its connection while a replica
  processes its request, although the money may have moved by then. It is switched off.
- HAProxy listens and returns 404 before Serve has any route. It must not listen until there is one.

A file that differs from what Ray 2.60 writes is rejected. HAProxy then does not start, and Serve
logs why. Editing only the known parts could leave a port open unnoticed.
"""

import re
from dataclasses import dataclass
from typing import Final

_FRONT: Final = "frontend http_frontend"
_LOOPBACK_ONLY: Final = ("frontend prometheus", "listen stats")
_OURS: Final = "    # -- added by this service --"
_BIND: Final = re.compile(r"(\s*bind )(?:\*|127\.0\.0\.1)?:(\d+)")
_OVERRIDES: Final = re.compile(
    r"\s*(option abortonclose|timeout (client|http-request|http-keep-alive)) ?.*"
)

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


def prepared(text: str, timeouts: ClientTimeouts) -> Prepared:
    """Edit ``text`` for HAProxy. Idempotent.

    Raises:
        UnknownConfiguration: ``text`` differs from what Ray 2.60 writes.
    """
    sections = _sections(text)
    _check_names(sections)
    has_routes = any(
        head == _FRONT and any(line.startswith("    use_backend ") for line in lines)
        for head, lines in sections
    )
    if _OURS not in text.splitlines():
        sections = [_changed(section, timeouts, listens=has_routes) for section in sections]
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


def _changed(section: _Section, timeouts: ClientTimeouts, *, listens: bool) -> _Section:
    head, lines = section
    if head == "defaults":
        return head, _with_ours(lines, timeouts)
    if overriding := [line for line in lines if _OVERRIDES.fullmatch(line)]:
        raise UnknownConfiguration(f"unexpected {overriding[0].strip()!r} in {head!r}")
    if head in _LOOPBACK_ONLY:
        lines = [_on_loopback(head, line) if _is_bind(line) else line for line in lines]
    binds = sum(_is_bind(line) for line in lines)
    if binds != (1 if head in (_FRONT, *_LOOPBACK_ONLY) else 0):
        raise UnknownConfiguration(f"unexpected number of binds in {head!r}: {binds}")
    if head == _FRONT:
        lines = [*_front_rules(timeouts), *lines]
    return head, lines if listens else [line for line in lines if not _is_bind(line)]


def _with_ours(lines: list[str], timeouts: ClientTimeouts) -> list[str]:
    """The defaults with this service's lines at the end, so that they override earlier ones."""
    if not any(re.fullmatch(r"\s*timeout client \d+s\s*", line) for line in lines):
        raise UnknownConfiguration("no 'timeout client' in the defaults")
    return [
        *lines,
        _OURS,
        f"    timeout http-request {timeouts.header_s}s",
        f"    timeout http-keep-alive {timeouts.idle_s}s",
        "    no option abortonclose",
    ]


def _front_rules(timeouts: ClientTimeouts) -> list[str]:
    stream = "{ req.hdr(content-type) -m sub ndjson }"
    return [
        _OURS,
        f"    http-request wait-for-body time {timeouts.header_s}s if METH_POST !{stream}",
    ]


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
