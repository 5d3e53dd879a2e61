"""Specification of a route: parameters, responses and problems, with examples."""

from dataclasses import dataclass, field
from typing import Any, Final

from runtime.settings import Settings
from serve_app.asgi.endpoint import Endpoint, RawRoute
from serve_app.auth.api_key import KeyScope
from serve_app.http.problems import PROBLEM_JSON, PROBLEM_TYPES, ProblemDocument
from serve_app.http.request_rules import Allowed
from serve_app.openapi import examples, security
from serve_app.openapi.components import Model, reference
from serve_app.openapi.shared_components import UUID, shared
from wallet.api_limits import (
    IDEMPOTENCY_KEY_MAX,
    REQUEST_ID_MAX,
    VERSION_MAX,
    VISIBLE_ASCII_PATTERN,
)

Json = dict[str, Any]

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseSpec:
    """A response other than a problem. ``example``: the model's default if None."""

    what: str
    model: Model | None = None
    example: Json | None = None
    other_media: tuple[str, ...] = ()
    """Other media types, by content negotiation."""
    links: Json = field(default_factory=dict)
    """OpenAPI links to follow-up operations."""

    def content(self) -> Json:
        if self.model is None:
            return {}
        example = (
            self.example if self.example is not None else examples.EXAMPLES_BY_MODEL[self.model]
        )
        media: Json = {JSON: {"schema": reference(self.model), "example": example}}
        media |= {name: {"schema": {"type": "string"}} for name in self.other_media}
        return {"content": media, **({"links": self.links} if self.links else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBodySpec:
    """A request's body."""

    model: Model
    example: Json
    required: bool = False
    other_media: tuple[str, ...] = ()
    json_media: tuple[str, ...] = ()
    """Other media types of the same model."""

    def as_json(self) -> Json:
        body = {"schema": reference(self.model), "example": self.example}
        content: Json = {JSON: body} | dict.fromkeys(self.json_media, body)
        content |= {name: {"schema": {"type": "string"}} for name in self.other_media}
        return {"required": self.required, "content": content}


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSpec:
    """A route and its OpenAPI operation."""

    method: str
    path: str
    endpoint: Endpoint
    tag: str
    summary: str
    answers: dict[int, ResponseSpec]
    problems: tuple[str, ...] = ()
    description: str
    body: RequestBodySpec | None = None
    parameters: tuple[Json, ...] = ()
    """Besides path parameters and those of every route with this method."""
    needs_key: bool = False
    """Whether a request without an Idempotency-Key is rejected."""
    etag: bool = False
    scope: KeyScope | None = None
    """Required scope; None: that of the method."""

    @property
    def needs(self) -> KeyScope | None:
        """The required scope. Every route under /v1/ has one, new ones too."""
        if not self.path.startswith("/v1/"):
            return None
        if self.scope is not None:
            return self.scope
        return "wallets:read" if self.method == "GET" else "wallets:write"

    @property
    def methods(self) -> tuple[str, ...]:
        """HTTP methods: GET routes also support HEAD."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    @property
    def allowed(self) -> Allowed:
        """The documented query parameters and headers; others are rejected."""
        names = {
            place: frozenset(_sent_name(one) for one in self.parameters if one["in"] == place)
            for place in ("query", "header")
        }
        of_method = Allowed.of_read if self.method == "GET" else Allowed.of_write
        return of_method(query=names["query"], headers=names["header"])

    def as_routes(self) -> list[RawRoute]:
        """One route per method; the OpenAPI document includes the first."""
        return [self._as_route(method) for method in self.methods]

    def _as_route(self, method: str) -> RawRoute:
        return RawRoute(
            self.path,
            self.endpoint,
            self.needs,
            self.allowed,
            methods=[method],
            include_in_schema=method == self.method,
            name=self.endpoint.__name__,
            operation_id=self.endpoint.__name__,
            tags=[self.tag],
            summary=self.summary,
            description=self.description,
            status_code=min(self.answers),
        )

    @property
    def models(self) -> list[Model]:
        models = [
            response.model for response in self.answers.values() if response.model is not None
        ]
        if self.problems:
            models.append(ProblemDocument)
        return [*models, self.body.model] if self.body is not None else models

    def operation(self, auth: security.Auth) -> Json:
        """Parameters, responses, security and body of the OpenAPI operation."""
        extra: Json = {"parameters": self._parameters(), "responses": self._responses()}
        if auth != "off" and self.needs is not None:
            extra["security"] = security.requirements(auth, self.needs)
        if self.body is not None:
            extra["requestBody"] = self.body.as_json()
        return extra

    def _parameters(self) -> list[Json]:
        named = [_PATH_PARAMETERS[name] for name in _PATH_PARAMETERS if f"{{{name}}}" in self.path]
        headers = [_REQUEST_ID]
        if self.method != "GET":
            headers += [_IDEMPOTENCY_KEY | {"required": self.needs_key}, _TIMEOUT]
        return [*named, *self.parameters, *headers]

    def _responses(self) -> Json:
        responses: Json = {
            str(status): {
                "description": response.what,
                "headers": self._headers(status),
                **response.content(),
            }
            for status, response in self.answers.items()
        }
        for status, codes in self._codes_by_status().items():
            answer = _problem_answer(codes)
            answer["headers"] = self._headers(status)
            responses[str(status)] = answer
        return dict(sorted(responses.items()))

    def _codes_by_status(self) -> dict[int, list[str]]:
        by_status: dict[int, list[str]] = {}
        for code in (*(security.PROBLEMS if self.needs else ()), *self.problems):
            by_status.setdefault(PROBLEM_TYPES[code].status, []).append(code)
        assert not by_status.keys() & self.answers.keys(), (
            "a status is either a response or a problem"
        )
        return by_status

    def _headers(self, status: int) -> Json:
        names = ["X-Request-Id"]
        if self.method != "GET" and status in _REPLAYABLE_STATUSES:
            names.append("Idempotency-Replayed")
        if status == 201:
            names.append("Location")
        if self.etag and status in (200, 304):
            names.append("ETag")
        if self.method == "GET" and self.path.startswith("/v1/") and status in (200, 304):
            names.append("Wallet-History")
        if status in (429, 503) and status not in self.answers:
            names.append("Retry-After")
        if status in (401, 403):
            names.append("WWW-Authenticate")
        return {name: _HEADERS[name] for name in names}


def _sent_name(parameter: Json) -> str:
    """The name of ``parameter`` in a request; of one with names of its own, their prefix."""
    name: str = parameter["name"]
    return f"{name}." if parameter["schema"].get("type") == "object" else name


_REPLAYABLE_STATUSES: Final = (200, 201, 409, 412)


def _problem_answer(codes: list[str]) -> Json:
    return {
        "description": " · ".join(f"`{code}`: {PROBLEM_TYPES[code].title}" for code in codes),
        "content": {
            PROBLEM_JSON: {
                "schema": reference(ProblemDocument),
                "examples": {code: {"value": examples.problem(code)} for code in codes},
            }
        },
    }


_PATH_PARAMETERS: Final[dict[str, Json]] = {
    "wallet_id": {
        "name": "wallet_id",
        "in": "path",
        "required": True,
        "description": "Id of the wallet.",
        "example": examples.WALLET_ID,
        "schema": UUID,
    },
    "transfer_id": {
        "name": "transfer_id",
        "in": "path",
        "required": True,
        "description": "Id of the transfer.",
        "example": examples.TRANSFER_ID,
        "schema": UUID,
    },
    "code": {
        "name": "code",
        "in": "path",
        "required": True,
        "description": "Code of a problem.",
        "schema": shared("ProblemCode"),
        "example": "insufficient_funds",
    },
}

_REQUEST_ID: Final[Json] = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "Id of the request in the response and in the logs: 1 to "
    f"{REQUEST_ID_MAX} visible ASCII characters. Generated if missing or invalid.",
    "schema": {"type": "string"},
}

_IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes retries safe: the same key with the same request returns the same status "
    "and body (`Idempotency-Replayed: true`); the same key with another request is rejected. "
    "Unique per wallet; for wallet creation, per service.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": IDEMPOTENCY_KEY_MAX,
        "pattern": VISIBLE_ASCII_PATTERN,
    },
}

_TIMEOUT_MAX_MS: Final = int(Settings.model_fields["request_timeout_max_s"].default * 1000)

_TIMEOUT: Final[Json] = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "Deadline in milliseconds. A command without a decision by then is rejected.",
    "schema": {"type": "integer", "minimum": 1, "maximum": _TIMEOUT_MAX_MS},
}

_HEADERS: Final[dict[str, Json]] = {
    "X-Request-Id": {
        "description": "Id of the request in the logs.",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "`true`: replayed response of an earlier request with the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Location": {"description": "Path of the created resource.", "schema": {"type": "string"}},
    "ETag": {"description": "The wallet's version.", "schema": {"type": "string"}},
    "Wallet-History": {
        "description": "`forked`: the database has lost some of the wallet's latest writes, and "
        "the operator has not decided yet what becomes of them. Absent otherwise.",
        "schema": {"type": "string", "enum": ["forked"]},
    },
    "WWW-Authenticate": security.CHALLENGE,
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
}


def links(parameters: dict[str, str], **descriptions: str) -> Json:
    """OpenAPI links to operations with ``parameters``; values: their descriptions."""
    return {
        operation: {
            "operationId": operation,
            "description": description,
            "parameters": parameters,
        }
        for operation, description in descriptions.items()
    }


def query(name: str, description: str, schema: Json, *, required: bool = False) -> Json:
    """A query parameter."""
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": schema,
    }


FRESHNESS: Final = (
    query(
        "min_version",
        "Read at least this version of the wallet. Pass the version from a write's response to "
        "read your own write.",
        {"type": "integer", "format": "int64", "minimum": 0, "maximum": VERSION_MAX},
    ),
    query(
        "consistency",
        "`strong`: read the committed state instead of the projection.",
        shared("Consistency"),
    ),
)
"""Parameters of all routes that read wallets or transfers."""


IF_NONE_MATCH: Final[Json] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "ETags of cached versions: 304 without a body if one of them is current. The "
    "response is never older than the latest of them.",
    "schema": {"type": "string"},
}

IF_MATCH_PATTERN: Final = r'^(\*|"[0-9]{1,19}"([ \t]*,[ \t]*"[0-9]{1,19}")*)$'
"""Matches what `serve_app.http.requests.if_match_of` accepts."""

IF_MATCH: Final[Json] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "ETag of the wallet that the request was decided on: 412 if it has moved. "
    "Several, or `*` for any version, are possible.",
    "schema": {"type": "string", "pattern": IF_MATCH_PATTERN},
}

COMMON_PROBLEMS: Final = ("internal_error",)
READ_PROBLEMS: Final = (
    "version_not_reached",
    "validation_error",
    "unavailable",
    "history_forked",
    *COMMON_PROBLEMS,
)
WRITE_PROBLEMS: Final = (
    "malformed_json",
    "body_too_large",
    "unsupported_media_type",
    "unsupported_content_encoding",
    "validation_error",
    "idempotency_key_reused",
    "overloaded",
    "unavailable",
    "history_forked",
    "deadline_exceeded",
    *COMMON_PROBLEMS,
)
