"""Where Serve listens, as Serve knows it: `serve deploy` reads that from a file of its own."""

import ray
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE


async def serve_bind_host() -> str | None:
    """The address that HAProxy and the replicas of this cluster listen on; None: all of them."""
    controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    options = await controller.get_http_config.remote()
    host: str | None = options.host
    return host
