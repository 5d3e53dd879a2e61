"""Rule 4, the rows: what is remembered under a key tells of an event, and tells it as it is."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from verification.facts import JournalEvent, KeyRow
from verification.responses import ReportedState, parse_transfer, parse_wallet
from verification.violations import Violation, ViolationKind

EventKey = tuple[str, int]
"""A wallet and a version of it."""


def referenced_versions(keys: Sequence[KeyRow]) -> list[EventKey]:
    """The events that the remembered answers tell of."""
    told = map(_told_by, keys)
    return sorted({(one.wallet_id, one.version) for one in told if one is not None})


def judge_key_rows(
    keys: Sequence[KeyRow], events: Mapping[EventKey, JournalEvent], versions: Mapping[str, int]
) -> Iterator[Violation]:
    """``events`` are at `referenced_versions`; ``versions`` are of the wallets that exist.

    A key without a wallet is that of a creation, whose scope is the service's own matter.
    """
    for key in keys:
        detail = f"key={key.key} version={key.version}"
        told = _told_by(key)
        if told is not None:
            event = events.get((told.wallet_id, told.version))
            strays = bool(told.transfer_id) and told.wallet_id != key.wallet_id
            if event is None or strays:
                yield _violation(ViolationKind.KEY_ROW_WITHOUT_EVENT, key, f"{detail} {told}")
            elif event.after != told.sums:
                yield _violation(
                    ViolationKind.KEY_ROW_DIFFERS, key, f"{detail} {told}, journal {event}"
                )
        elif key.version > versions.get(key.wallet_id, key.version):
            yield _violation(ViolationKind.KEY_ROW_WITHOUT_EVENT, key, detail)


def _told_by(key: KeyRow) -> ReportedState | None:
    """What the remembered answer says; None if it is a refusal, or a batch's, which tells many."""
    if key.refused:
        return None
    for decode in (parse_transfer, parse_wallet):
        try:
            return decode(key.answer)
        except (msgspec.MsgspecError, ValueError):
            continue
    return None


def _violation(breach: ViolationKind, key: KeyRow, detail: str) -> Violation:
    return Violation(kind=breach, wallet_id=key.wallet_id, detail=detail)
