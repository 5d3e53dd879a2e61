"""New ids: UUIDv7, ordered by time to the millisecond, 74 random bits (RFC 9562, 5.7).

Two packages make them. `uuid6` is the project's; it gives no two ids of a process the same
millisecond, so above a thousand a second it runs ahead of the clock. A batch asks for tens of
thousands a second: ids of wallets and transfers come from `uuid_utils`
(`specification/decisions/0047-two-packages-make-ids.md`).
"""

import uuid6
import uuid_utils


def new_id() -> str:
    """The id of a new wallet or transfer. Its time is the clock's, however many are made."""
    return str(uuid_utils.uuid7())


def new_request_id() -> str:
    """The id of a request, or of a part of one. Its time may be ahead of the clock."""
    return str(uuid6.uuid7())
