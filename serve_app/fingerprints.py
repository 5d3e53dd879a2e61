"""Fingerprints of requests: whether two requests under one key are the same request.

Everything that the client asked for goes in, in canonical form (``10.5`` is ``10.50``); nothing
that the service added does.
"""

from hashlib import sha256

from pydantic import BaseModel

from serve_app.requests import canonical_json


def fingerprint(operation: str, body: BaseModel) -> bytes:
    """SHA-256 of the operation (with the ids in its path) and of the body's values."""
    return sha256(canonical_json([operation, body.model_dump(mode="python")])).digest()
