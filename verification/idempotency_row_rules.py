"""Rule 4, the rows: an answer stored under an idempotency key matches its event."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from verification.facts import JournalEvent, KeyRow
from verification.responses import ReportedState, parse_transfer, parse_wallet
from verification.violations import Violation, ViolationKind

EventKey = tuple[str, int]
"""A wallet and a version of it."""


def referenced_versions(keys: Sequence[KeyRow]) -> list[EventKey]:
    """The events that the stored answers refer to."""
    reported = map(_reported_by, keys)
    return sorted({(one.wallet_id, one.version) for one in reported if one is not None})


def check_key_rows(
    keys: Sequence[KeyRow], events: Mapping[EventKey, JournalEvent], versions: Mapping[str, int]
) -> Iterator[Violation]:
    """``events`` are at `referenced_versions`; ``versions`` are of the wallets that exist.

    A key without a wallet belongs to a wallet creation: only the service knows its scope.
    """
    for key in keys:
        detail = f"key={key.key} version={key.version}"
        reported = _reported_by(key)
        if reported is not None:
            event = events.get((reported.wallet_id, reported.version))
            in_other_wallet = bool(reported.transfer_id) and reported.wallet_id != key.wallet_id
            if event is None or in_other_wallet:
                yield _violation(ViolationKind.KEY_ROW_WITHOUT_EVENT, key, f"{detail} {reported}")
            elif event.after != reported.balances:
                yield _violation(
                    ViolationKind.KEY_ROW_DIFFERS, key, f"{detail} {reported}, journal {event}"
                )
        elif key.version > versions.get(key.wallet_id, key.version):
            yield _violation(ViolationKind.KEY_ROW_WITHOUT_EVENT, key, detail)


def _reported_by(key: KeyRow) -> ReportedState | None:
    """The state in the stored answer; None for a refusal and for a batch, which has many."""
    if key.refused:
        return None
    for decode in (parse_transfer, parse_wallet):
        try:
            return decode(key.answer)
        except (msgspec.MsgspecError, ValueError):
            continue
    return None


def _violation(kind: ViolationKind, key: KeyRow, detail: str) -> Violation:
    return Violation(kind=kind, wallet_id=key.wallet_id, detail=detail)
