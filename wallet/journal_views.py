"""JSON of the journal's pages: events as they were published, with the wallet after each."""

from typing import Annotated

import msgspec
from msgspec import Meta

from wallet.event_codec import CloudEvent, cloud_event
from wallet.events import RecordedEvent
from wallet.representation import BalancesView, balances_view


class JournalEventView(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the journal."""

    event: CloudEvent
    """As it is on the stream, byte for byte."""
    wallet: Annotated[BalancesView, Meta(description="The wallet after the event.")]
    made_by: Annotated[
        str | None,
        Meta(description="Id of the API key of the request; null: authentication was off."),
    ]


class JournalPageView(msgspec.Struct, frozen=True, kw_only=True):
    """Events of a wallet, in the order of its versions."""

    items: list[JournalEventView]
    next_version: Annotated[
        int | None,
        Meta(
            description="For the next page: pass as `after_version` (order `asc`) or "
            "`before_version` (order `desc`); null on the last page."
        ),
    ]
    wallet_version: Annotated[int, Meta(description="Wallet version at which the page was read.")]


def journal_event_view(recorded: RecordedEvent) -> JournalEventView:
    return JournalEventView(
        event=cloud_event(recorded),
        wallet=balances_view(recorded.wallet_after),
        made_by=recorded.made_by,
    )
