"""Ids that tests make up."""

import uuid6


def new_id() -> str:
    """Like an id of the service: a UUIDv7."""
    return str(uuid6.uuid7())
