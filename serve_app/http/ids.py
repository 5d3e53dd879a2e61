"""New ids: UUIDv7, ordered by time to the millisecond, 74 random bits (RFC 9562, 5.7).

Two packages generate them. `uuid6` never uses the same millisecond twice in a process, so above a
thousand ids a second it runs ahead of the clock. Batches need tens of thousands a second: ids of
wallets and transfers come from `uuid_utils`
(`specification/decisions/0047-two-packages-make-ids.md`).
"""

import uuid6
import uuid_utils


def new_id() -> str:
    """Id of a new wallet or transfer. Its timestamp is exact at any rate."""
    return str(uuid_utils.uuid7())


def new_request_id() -> str:
    """Id of a request, or of a part of one. Its timestamp may be ahead of the clock."""
    return str(uuid6.uuid7())
