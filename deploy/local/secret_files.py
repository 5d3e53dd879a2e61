"""Secrets of the local servers: generated once, readable by their owner only."""

import os
import secrets
from pathlib import Path

_SECRET_BYTES = 24


def read_or_create_secret(path: Path) -> str:
    """The secret in `path`; generated if the file doesn't exist. Safe in a URL."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        write_private(path, secret + "\n")
        return secret


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write `path` atomically, never readable by other users."""
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    scratch.replace(path)
