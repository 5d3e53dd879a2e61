"""How many ingress replicas there should be, by what they use of the processors.

Serve's own measure, requests under way, counts none here: API requests are answered in front of its
accounting (see front.py). It would mislead, too: a replica whose requests wait for a shard or for
Postgres is not a busy one, and a second wouldn't help them.

In serve.yaml, below ``autoscaling_config``:

    policy:
      policy_function: serve_app.autoscaling:CpuUtilizationPolicy
      policy_kwargs: {target: 0.6}
"""

import time
from typing import Any, Final

from ray.serve.config import AutoscalingContext

CPU_METRIC: Final = "processor"
"""Name of the measure: how much of one core a replica used."""


class CpuUsage:
    """What this process used of one core since it was asked last."""

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
    """As many replicas as bring each to ``target`` of a core. Serve applies bounds and delays.

    HTTP is one thread, and waiting for it grows steeply past 0.6 or so.
    """

    def __init__(self, target: float = 0.6) -> None:
        if not 0 < target <= 1:
            raise ValueError(f"a replica can't use {target:g} of a core")
        self._target = target

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        measured = (context.aggregated_metrics or {}).get(CPU_METRIC, {})
        if not measured:
            return context.target_num_replicas, {}
        return sum(measured.values()) / self._target, {}
