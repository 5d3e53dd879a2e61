"""What `ray start` leaves out for a local stack. Ray calls it because RAY_START_HOOK names it."""

from typing import Any


def trim(parameters: Any, head: bool) -> None:
    """No Ray Client server: nobody here connects that way, and it takes 1.5 s and 100 MB.

    `ray start` has no option for this.
    """
    if head:
        parameters.ray_client_server_port = None
