"""The bytes of requests for the Python generator, encoded once and sent many times."""

import re
from collections import deque
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from bench.generators.request_script import RequestTemplate, ResponseMode

_CREATED: Final = re.compile(rb'\{"id":"([0-9a-f-]{36})","wallet_id":"([0-9a-f-]{36})"')


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise ValueError(f"the bench speaks plain HTTP: {url!r}")
    return parts.hostname, parts.port or 80


def encode(template: RequestTemplate, url: str, headers: Sequence[str], key: str = "") -> bytes:
    """One HTTP/1.1 request."""
    host, port = address_of(url)
    body = template.body.encode()
    lines = [f"{template.method} {template.path} HTTP/1.1", f"Host: {host}:{port}", *headers]
    if body:
        lines.append("Content-Type: application/json")
    if body or template.method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    if key:
        lines.append(f"Idempotency-Key: {key}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class RequestSource:
    """Requests in script order; settlements of created transfers go first."""

    def __init__(
        self,
        templates: Sequence[RequestTemplate],
        *,
        url: str,
        headers: Sequence[str] = (),
        mode: ResponseMode = ResponseMode.PLAIN,
        key_prefix: str = "",
    ) -> None:
        self._url = url
        self._headers = headers
        self._settles = mode is ResponseMode.SETTLE
        self._prefix = key_prefix.encode()
        self._parts = [
            encode(template, url, headers, "@KEY@" if template.has_key else "").split(b"@KEY@")
            for template in templates
        ]
        self._position = 0
        self._serial = 0
        self._settlements: deque[bytes] = deque()

    def next(self) -> bytes:
        """The next request."""
        if self._settlements:
            return self._settlements.popleft()
        parts = self._parts[self._position]
        self._position = (self._position + 1) % len(self._parts)
        if len(parts) == 1:
            return parts[0]
        self._serial += 1
        return parts[0] + self._prefix + b"%d" % self._serial + parts[1]

    def note(self, status: int, body: bytes) -> None:
        """Queue the settlement of a created transfer."""
        if not self._settles or status != 201:
            return
        created = _CREATED.match(body)
        assert created is not None, "a transfer's JSON begins with its id and wallet"
        transfer, wallet = created[1].decode(), created[2].decode()
        path = f"/v1/wallet/{wallet}/transfers/{transfer}/complete"
        self._settlements.append(
            encode(RequestTemplate(method="POST", path=path), self._url, self._headers)
        )
