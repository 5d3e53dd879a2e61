"""What a node's HAProxy answers to `GET /healthz`, and what it says without a replica's response.

A load balancer asks `/healthz` of every node. Serve's template sends that to any replica of the
cluster, whatever becomes of this node. Here it is answered by the first of these that applies:

1. 503 while the node drains: `deploy.node.drain` said so on the admin socket.
2. The replica on this node answers: 503 if it reaches no shard.
3. Without a replica on this node: 503 if Serve drains the node's HAProxy, which it will end.
4. Otherwise 200 if a replica on another node can be reached, else 503.

Serve's word counts only without a replica that answers. Serve drains the HAProxy of a node without
a replica. If its controller is lost meanwhile, the next one takes that HAProxy for a healthy one
and never ends the drain, although a replica has started on the node (decision 0086).

Serve's template turns HAProxy's own 502, 503 and 504 into one page with the status 500, which does
not say whether a request was applied. Here they are problem documents:

- 503: no connection to a replica could be made. Nothing was delivered, so nothing was applied.
- 502: the connection ended without a response. It is sent as 503, `applied: unknown`.
- 504: no response in time, `applied: unknown`.
"""

import json
from pathlib import Path
from typing import Final, Literal, NamedTuple

ADMISSION: Final = "this-node"
"""A backend that nothing is sent to. Its only server is up while the node takes connections."""
ADMISSION_SERVER: Final = f"{ADMISSION}/accepts"
"""In HAProxy's state file as well, so that a reload doesn't forget that it was put into
maintenance."""

_HERE: Final = "-on-this-node"
_RETRY_AFTER_S: Final = 1
_PROBLEM_JSON: Final = "application/problem+json"


class ProblemPage(NamedTuple):
    """A problem document instead of a page of HAProxy's. ``error``: the status that it replaces."""

    error: int
    status: int
    reason: str
    code: str
    title: str
    applied: Literal["no", "unknown"]
    detail: str

    @property
    def document(self) -> str:
        return json.dumps(
            {
                "type": f"/problems/{self.code}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                "code": self.code,
                "request_id": "",
                "applied": self.applied,
            }
        )

    @property
    def response(self) -> str:
        """The whole response, as HAProxy's ``errorfile`` takes it."""
        body = self.document
        head = [
            f"HTTP/1.1 {self.status} {self.reason}",
            f"Content-Type: {_PROBLEM_JSON}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-cache",
            f"Retry-After: {_RETRY_AFTER_S}",
        ]
        return "\r\n".join([*head, "", body])


PAGES: Final = (
    ProblemPage(
        502, 503, "Service Unavailable", "unavailable", "Service unavailable", "unknown",
        "The connection to the service ended before it responded. The request may have been "
        "applied; repeating it with the same Idempotency-Key is safe.",
    ),
    ProblemPage(
        503, 503, "Service Unavailable", "unavailable", "Service unavailable", "no",
        "This node reaches no part of the service. This request applied nothing; repeat it with "
        "the same Idempotency-Key.",
    ),
    ProblemPage(
        504, 504, "Gateway Timeout", "deadline_exceeded", "Deadline exceeded", "unknown",
        "The service did not respond in time. The request may have been applied; repeating it "
        "with the same Idempotency-Key is safe.",
    ),
)  # fmt: skip

_NOT_ACCEPTING: Final = ProblemPage(
    503, 503, "Service Unavailable", "unavailable", "Service unavailable", "no",
    "This node drains or reaches no part of the service: use another one.",
)  # fmt: skip


def page_path(folder: Path, page: ProblemPage) -> Path:
    return folder / f"problem-{page.error}.http"


def write_pages(folder: Path) -> None:
    """Write the files that the edited configuration names."""
    for page in PAGES:
        page_path(folder, page).write_text(page.response, encoding="ascii", newline="")


def errorfile_lines(folder: Path) -> list[str]:
    return [f"    errorfile {page.error} {page_path(folder, page)}" for page in PAGES]


def health_rules(backend: str, *, drains: bool) -> list[str]:
    """The rules of the frontend for ``/healthz``. ``drains``: Serve says so, maybe of before."""
    unavailable = (
        f'    http-request return status 503 content-type "{_PROBLEM_JSON}" '
        f"hdr Retry-After {_RETRY_AFTER_S} string '{_NOT_ACCEPTING.document}' if node_health"
    )
    here = f"{{ nbsrv({backend}{_HERE}) ge 1 }}"
    anywhere = f"{{ nbsrv({backend}) ge 1 }}"
    without_replica = (
        [f"{unavailable} !{here}"]
        if drains
        else [
            f"{unavailable} !{here} !{anywhere}",
            '    http-request return status 200 content-type "application/json" '
            f'string \'{{"status":"ok"}}\' if node_health !{here}',
        ]
    )
    return [
        "    acl node_health path /healthz",
        f"{unavailable} {{ nbsrv({ADMISSION}) eq 0 }}",
        *without_replica,
        f"    use_backend {backend}{_HERE} if node_health",
    ]


def health_backends(backend: str, lines: list[str]) -> list[tuple[str, list[str]]]:
    """The sections that the rules name. ``lines``: those of Serve's backend.

    The replicas on this node are those with a loopback address. Their checks are shared with
    Serve's backend.
    """
    servers = [line.split() for line in lines if line.strip().startswith("server ")]
    here = [
        f"    server {words[1]} {words[2]} track {backend}/{words[1]}"
        for words in servers
        if words[2].startswith("127.0.0.1:") and "backup" not in words
    ]
    name, server = ADMISSION_SERVER.split("/")
    return [
        (f"backend {backend}{_HERE}", here),
        (f"backend {name}", [f"    server {server} 127.0.0.1:1"]),
    ]
