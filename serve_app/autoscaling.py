"""Autoscaling of ingress replicas by CPU utilization.

Serve's own metric, ongoing requests, is always zero here: API requests bypass its accounting (see
asgi/serve_middleware.py). It would mislead, too: a replica whose requests wait for a shard or for
Postgres is not busy, and a second replica wouldn't help.

In serve.yaml, below ``autoscaling_config``:

    policy:
      policy_function: serve_app.autoscaling:CpuUtilizationPolicy
      policy_kwargs: {target: 0.6}
"""

import time
from typing import Any, Final

from ray.serve.config import AutoscalingContext

CPU_METRIC: Final = "processor"
"""Name of the autoscaling metric: the share of one core that a replica used."""


class CpuUsage:
    """CPU use of this process since the last call, as a share of one core."""

    def __init__(self) -> None:
        self._used_s = time.process_time()
        self._at_s = time.monotonic()

    def share(self) -> float:
        used_s, at_s = time.process_time(), time.monotonic()
        passed_s = max(at_s - self._at_s, 1e-3)
        share = (used_s - self._used_s) / passed_s
        self._used_s, self._at_s = used_s, at_s
        return share


class CpuUtilizationPolicy:
    """Scales so that each replica uses ``target`` of a core. Serve applies bounds and delays.

    A replica serves HTTP in one thread; its queueing delay grows steeply above about 0.6.
    """

    def __init__(self, target: float = 0.6) -> None:
        if not 0 < target <= 1:
            raise ValueError(f"target must be above 0 and at most 1, not {target:g}")
        self._target = target

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        measured = (context.aggregated_metrics or {}).get(CPU_METRIC, {})
        if not measured:
            return context.target_num_replicas, {}
        return sum(measured.values()) / self._target, {}
