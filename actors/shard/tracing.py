"""OpenTelemetry spans of a shard. Called only if `tracing.enabled`."""

from collections.abc import Sequence

import msgspec

from actors.shard.batch_timings import BatchTimes
from runtime import tracing
from wallet.commands import (
    ClaimKey,
    Command,
    CommandRequest,
    CreateTransfer,
    CreateWallet,
    RefundTransfer,
    SettleTransfer,
)
from wallet.events import RecordedEvent, TransferChanged


def trace_batch(
    requests: Sequence[CommandRequest], recorded: list[RecordedEvent], times: BatchTimes
) -> None:
    """Record the batch's spans, and set each event's trace to that of its request."""
    traced = [request for request in requests if request.traceparent is not None]
    if not traced:
        return
    tracing.record_batch_span(
        [str(request.traceparent) for request in traced],
        [
            ("", times.dequeued),
            ("load", times.loaded),
            ("decide", times.decided),
            ("postgres commit_batch", times.committed),
            ("reply", times.answered),
        ],
        {"wallet.requests": len(requests), "wallet.events": len(recorded)},
    )
    traces = {made: request.traceparent for request in traced for made in _ids(request)}
    for place, one in enumerate(recorded):
        event = one.event
        made = event.transfer.id if isinstance(event, TransferChanged) else event.wallet_id
        if made in traces:
            recorded[place] = msgspec.structs.replace(one, traceparent=traces[made])


def _ids(request: CommandRequest) -> list[str]:
    """Ids of the wallets and transfers that ``request`` creates or changes."""
    return [
        _id(request, item.command)
        for item in request.items
        if not isinstance(item.command, ClaimKey)
    ]


def _id(request: CommandRequest, command: Command) -> str:
    if isinstance(command, CreateTransfer | RefundTransfer | SettleTransfer):
        return command.transfer_id
    return command.wallet_id if isinstance(command, CreateWallet) else request.wallet_id
