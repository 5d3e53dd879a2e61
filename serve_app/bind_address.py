"""The address Serve listens on, read from the Serve controller.

`serve deploy` takes it from its own file, so our settings don't know it.
"""

import ray
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE


async def serve_bind_host() -> str | None:
    """The address that HAProxy and the replicas listen on; None: all interfaces."""
    controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    options = await controller.get_http_config.remote()
    host: str | None = options.host
    return host
