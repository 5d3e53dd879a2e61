"""HAProxy's configuration: what Ray Serve wrote, as this service starts it.

Serve writes the file from a template and has no setting for some of what matters here:

- Its statistics and metrics listen on every interface and ask nobody who they are: on loopback.
- A client may take as long as it likes for its request's header: it gets a time-out, and the same
  for the body, or as much of it as a buffer takes. A stream of lines may take its time.
- ``option abortonclose`` answers 400 to a client that has closed its sending side while a replica
  works on its request, whose money may have moved by then: it is switched off.
- Before Serve knows a route it listens, and answers 404: nothing listens until there is a route.

A file that is not as it is known from Ray 2.60 is refused. HAProxy then does not start, and Serve
logs why; changing what is found and passing over the rest would leave a port open unnoticed.
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
    """The file is not as Serve is known to write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """How long a client may take, in seconds."""

    header_s: int
    """From the connection, or the first byte of a later request, to the end of the header; and
    from there to the end of the body, or of its first 16 KB."""
    idle_s: int
    """Between two requests of a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Configurations to start HAProxy with."""

    text: str
    """For the process that Serve starts."""
    standby: str | None
    """The same routes without HAProxy's own ports and admin socket; None without routes."""


def prepared(text: str, timeouts: ClientTimeouts) -> Prepared:
    """``text`` as HAProxy gets it. Prepared once more it stays the same.

    Raises:
        UnknownConfiguration: ``text`` has not what it is known to have.
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
            raise UnknownConfiguration(f"{line.strip()!r} comes before any section")
    return sections


def _joined(sections: list[_Section]) -> str:
    return "".join(f"{line}\n" for head, lines in sections for line in (head, *lines))


def _check_names(sections: list[_Section]) -> None:
    heads = [head for head, _ in sections]
    for known in ("global", "defaults", _FRONT, *_LOOPBACK_ONLY):
        if heads.count(known) != 1:
            raise UnknownConfiguration(f"{heads.count(known)} sections {known!r} instead of one")
    for head in heads:
        if head.split()[0] not in ("global", "defaults", "frontend", "backend", "listen"):
            raise UnknownConfiguration(f"a section {head!r}")


def _changed(section: _Section, timeouts: ClientTimeouts, *, listens: bool) -> _Section:
    head, lines = section
    if head == "defaults":
        return head, _with_ours(lines, timeouts)
    if overriding := [line for line in lines if _OVERRIDES.fullmatch(line)]:
        raise UnknownConfiguration(f"{overriding[0].strip()!r} in {head!r}")
    if head in _LOOPBACK_ONLY:
        lines = [_on_loopback(head, line) if _is_bind(line) else line for line in lines]
    binds = sum(_is_bind(line) for line in lines)
    if binds != (1 if head in (_FRONT, *_LOOPBACK_ONLY) else 0):
        raise UnknownConfiguration(f"{binds} addresses to listen on in {head!r}")
    if head == _FRONT:
        lines = [*_front_rules(timeouts), *lines]
    return head, lines if listens else [line for line in lines if not _is_bind(line)]


def _with_ours(lines: list[str], timeouts: ClientTimeouts) -> list[str]:
    """The defaults with what this service adds at their end, where it is the last word."""
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
        raise UnknownConfiguration(f"{line.strip()!r} in {head!r}")
    return f"{found[1]}127.0.0.1:{found[2]}"


def _standby(sections: list[_Section]) -> str:
    kept = [
        (head, [line for line in lines if not line.strip().startswith("stats socket")])
        for head, lines in sections
        if head not in _LOOPBACK_ONLY
    ]
    return _joined(kept)
