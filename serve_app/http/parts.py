"""Parts of holds, and refunds: what a request must say, and the key that it has in any case."""

from typing import Final

from serve_app.http.ids import new_id
from wallet.ids import IdempotencyKey

KEY_OF_A_PART: Final = (
    "send a key with final: false: without one a repetition would complete another part"
)
AMOUNT_OF_A_PART: Final = "send amount with final: without one, all that is left is completed"
KEY_OF_A_REFUND: Final = (
    "send a key with a refund: without one a repetition would refund a second time"
)

_OWN_KEY: Final = "wallet-service-"


def own_key() -> IdempotencyKey:
    """A key for a request without one, so that the service's own second delivery is recognised."""
    return IdempotencyKey(_OWN_KEY + new_id())
