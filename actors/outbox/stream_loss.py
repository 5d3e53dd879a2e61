"""Judges from its sequences whether the stream still has what it acknowledged.

The marks are read before the stream's state. Sequences only grow, so a mark never exceeds the state
of a stream that lost nothing.
"""

from enum import StrEnum

from actors.journal.ports import Acknowledged, StreamState, creation_of, fill_of


class StreamLoss(StrEnum):
    """Why the stream lacks events of the journal. The values are labels of fills and metrics."""

    NEW = "new"
    """It was created: for the first time, or after a deletion."""
    UNKNOWN = "unknown"
    """The database does not know it, and it has messages: perhaps the database is another one."""
    ROLLED_BACK = "rolledback"
    """Its newest messages are gone: its store was put back from a copy, or lost its power."""
    PURGED = "purged"
    """Its oldest messages are gone before they were old enough to expire."""
    INTERRUPTED = "interrupted"
    """A fill in place was begun and not finished."""


def loss_of(known: Acknowledged, state: StreamState) -> StreamLoss | None:
    """What happened to the stream; None: it has everything that it acknowledged."""
    if state.incarnation is None:
        return None
    if creation_of(known.incarnation) != creation_of(state.incarnation):
        # A fill that is not finished has only messages of the fill.
        is_filled = state.last_sequence and not fill_of(state.incarnation).startswith("new-")
        return StreamLoss.UNKNOWN if is_filled else StreamLoss.NEW
    if _is_purged(known, state):
        return StreamLoss.PURGED
    if known.incarnation != state.incarnation:
        return StreamLoss.INTERRUPTED  # Whatever its sequences are: they may be those of the fill.
    return StreamLoss.ROLLED_BACK if state.last_sequence < known.highest else None


def _is_purged(known: Acknowledged, state: StreamState) -> bool:
    if state.evicts or known.oldest_retained is None:
        return False
    return known.oldest_retained < state.first_sequence
