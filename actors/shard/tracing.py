"""A shard's spans. Called only where `tracing.enabled`."""

from collections.abc import Sequence

import msgspec

from actors.shard.batch_timings import BatchTimes
from runtime import tracing
from wallet.commands import ClaimKey, CommandRequest, CreateWallet
from wallet.events import RecordedEvent, TransferChanged


def trace_batch(
    submissions: Sequence[CommandRequest], recorded: list[RecordedEvent], times: BatchTimes
) -> None:
    """Leave the batch's spans, and give each event the trace of the request that made it."""
    traced = [submission for submission in submissions if submission.traceparent is not None]
    if not traced:
        return
    tracing.record_batch_span(
        [str(submission.traceparent) for submission in traced],
        [
            ("", times.dequeued),
            ("load", times.loaded),
            ("decide", times.decided),
            ("postgres commit_batch", times.committed),
            ("reply", times.answered),
        ],
        {"wallet.requests": len(submissions), "wallet.events": len(recorded)},
    )
    traces = {made: submission.traceparent for submission in traced for made in _ids(submission)}
    for place, one in enumerate(recorded):
        event = one.event
        made = event.transfer.id if isinstance(event, TransferChanged) else event.wallet_id
        if made in traces:
            recorded[place] = msgspec.structs.replace(one, traceparent=traces[made])


def _ids(submission: CommandRequest) -> list[str]:
    """What the commands of ``submission`` make or change."""
    return [
        item.command.wallet_id
        if isinstance(item.command, CreateWallet)
        else item.command.transfer_id
        for item in submission.items
        if not isinstance(item.command, ClaimKey)
    ]
