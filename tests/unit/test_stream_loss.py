"""What a stream lost is told by its sequences and the marks of what it acknowledged."""

import pytest

from actors.journal.ports import Acknowledged, StreamState
from actors.outbox.stream_loss import StreamLoss, loss_of

KNOWN = Acknowledged("created", 100, 40)


@pytest.mark.parametrize(
    ("known", "state", "loss"),
    [
        (KNOWN, StreamState("created", 40, 100), None),
        (KNOWN, StreamState("created", 1, 500), None),
        (KNOWN, StreamState("created", 1, 99), StreamLoss.ROLLED_BACK),
        (KNOWN, StreamState("created", 41, 100), StreamLoss.PURGED),
        (KNOWN, StreamState("created", 101, 100), StreamLoss.PURGED),
        (KNOWN, StreamState("created", 101, 100, evicts=True), None),
        (Acknowledged("created", 100, None), StreamState("created", 101, 100), None),
        (KNOWN, StreamState("created|purged-1", 1, 100), StreamLoss.INTERRUPTED),
        (KNOWN, StreamState("created|rolledback-9-1", 1, 99), StreamLoss.INTERRUPTED),
        (KNOWN, StreamState("created|purged-1", 101, 100), StreamLoss.PURGED),
        (KNOWN._replace(incarnation="created|a-1"), StreamState("created|a-1", 1, 100), None),
        (KNOWN._replace(incarnation="created|a-1"), StreamState("created"), StreamLoss.INTERRUPTED),
        (KNOWN, StreamState("another", 1, 0), StreamLoss.NEW),
        (KNOWN, StreamState("another|new-1", 1, 50), StreamLoss.NEW),
        (KNOWN, StreamState("another", 1, 50), StreamLoss.UNKNOWN),
        (Acknowledged(), StreamState("created", 1, 0), StreamLoss.NEW),
        (Acknowledged(), StreamState(None), None),
    ],
)
def test_a_loss_is_told_by_sequences_and_names(
    known: Acknowledged, state: StreamState, loss: StreamLoss | None
) -> None:
    assert loss_of(known, state) is loss
