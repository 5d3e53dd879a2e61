"""Tells Ray that a node drains: `python -m deploy.node.ray_drain NODE_ID SECONDS`.

What `ray drain-node` does, without the rest of Ray's command line: its imports take several seconds
of CPU, on a node that is to serve meanwhile. The head is at RAY_ADDRESS.
"""

import os
import sys
import time
from typing import Final

from ray._raylet import GcsClient  # type: ignore[attr-defined]  # Cython, without stubs
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

_MESSAGE: Final = "the node is stopped"


def drain(address: str, node_id: str, *, deadline_s: float) -> None:
    """Ask the head to drain a node; it counts as lost after the deadline.

    Raises:
        RuntimeError: the head refuses.
    """
    accepted, why = GcsClient(address=address).drain_node(
        node_id,
        DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        _MESSAGE,
        int((time.time() + deadline_s) * 1000),
    )
    if not accepted:
        raise RuntimeError(why)


if __name__ == "__main__":
    drain(os.environ["RAY_ADDRESS"], sys.argv[1], deadline_s=float(sys.argv[2]))
