"""New ids: UUIDv7, ordered by time to the millisecond (RFC 9562, 5.7).

Two packages generate them. `uuid6` never uses the same millisecond twice in a process, so above a
thousand ids a second it runs ahead of the clock. Batches need tens of thousands a second: ids of
wallets and transfers come from `uuid_utils`
(`specification/decisions/0047-two-packages-make-ids.md`).
"""

from typing import Final

import uuid6
import uuid_utils

_COUNTER_HEX_DIGITS: Final = 2
_COUNTER_MAX: Final = 16**_COUNTER_HEX_DIGITS - 1

_request_ids: list[str] = []
"""Ids made and not yet used, the next one last."""


def new_id() -> str:
    """Id of a new wallet or transfer, with 74 random bits. Its timestamp is exact at any rate."""
    return str(uuid_utils.uuid7())


def new_request_id() -> str:
    """Id of a request, or of a part of one.

    Its last two digits count (RFC 9562, 6.2, method 1): 256 ids share one timestamp and 66 random
    bits. Making each of them anew costs a fifth of what a request costs the ingress
    (`specification/decisions/0071-shapes-and-the-cost-of-a-keyed-request.md`).
    """
    try:
        return _request_ids.pop()
    except IndexError:
        shared = str(uuid6.uuid7())[:-_COUNTER_HEX_DIGITS]
        _request_ids.extend(f"{shared}{n:02x}" for n in range(_COUNTER_MAX, -1, -1))
        return _request_ids.pop()
