"""Ids for tests."""

import uuid6


def new_id() -> str:
    """A UUIDv7, like the ids of the service."""
    return str(uuid6.uuid7())
