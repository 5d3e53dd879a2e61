"""Starts the whole stack, as much as possible in parallel.

Ray takes longest by far, so everything else runs while it starts: PostgreSQL and its migrations,
NATS, and the Python imports of the deployer process.
"""

import psutil

from deploy.local import ray_head
from deploy.local.background_thread import BackgroundThread
from deploy.local.deployer_process import spawn_deployer
from deploy.local.errors import StackError
from deploy.local.log_files import last_matching_line
from deploy.local.ports import is_free
from deploy.local.processes import ProcessRecord, is_alive, wait_until
from deploy.local.progress import Progress
from deploy.local.ray_environment import PORTS, haproxy_unavailable_reason
from deploy.local.readiness_client import Readiness, fetch_readiness
from deploy.local.serve_deployer import DONE_MARKER
from deploy.local.servers import (
    assign_addresses,
    check_external_servers,
    migrate,
    start_nats,
    start_postgres,
)
from deploy.local.shutdown import stop_stack
from deploy.local.stack_state import StackState
from deploy.local.state_dir import StateDirectory, assign_ports, assign_socket_dir
from runtime.settings import Settings
from serve_app.auth.bind_policy import bind_policy_error, is_exposed_unauthenticated

_READY_TIMEOUT_S = 180.0
_LOCAL_HOSTS = ("0.0.0.0", "::", "127.0.0.1", "localhost")  # noqa: S104  # compared, not bound


def start_stack(
    settings: Settings, state_dir: StateDirectory, recorder: StackState, steps: Progress
) -> None:
    """Start everything and wait until the service is ready.

    A failure stops what was started and is raised. An interruption leaves it running and recorded.
    """
    _check_bind_policy(settings, steps)
    _check_port_free(settings)
    check_external_servers(settings, steps)
    try:
        _start(settings, state_dir, recorder, steps)
    except StackError:
        recorder.close()
        stop_stack(settings, state_dir, recorder, steps)
        raise


def http_url(settings: Settings) -> str:
    """Where a client on this machine reaches the service."""
    host = "localhost" if settings.http_host in _LOCAL_HOSTS else settings.http_host
    return f"http://{host}:{settings.http_port}"


def with_addresses(settings: Settings, recorder: StackState) -> Settings:
    """The settings with the addresses of the servers that were started here."""
    addresses = {
        "database_url": recorder.stack.database_url,
        "nats_url": recorder.stack.nats_url,
    }
    return settings.model_copy(update=addresses)


def _start(
    settings: Settings, state_dir: StateDirectory, recorder: StackState, steps: Progress
) -> None:
    _assign_addresses(settings, state_dir, recorder)
    reason = haproxy_unavailable_reason()
    if reason:
        steps.message(
            f"HAProxy is not available ({reason}): the service will be about 8 times slower"
        )
    deployed = with_addresses(settings, recorder)
    ray = BackgroundThread(lambda: _start_ray(deployed, state_dir, recorder, steps))
    database = BackgroundThread(lambda: _start_database(settings, state_dir, recorder, steps))
    if not settings.nats_url:
        start_nats(settings, state_dir, recorder, steps)
    database.result()
    deployer = spawn_deployer("deploy", deployed, state_dir)
    recorder.add(deployer)
    ray.result()
    with steps.step("Deploying the service", "The service is deployed and ready"):
        _wait_until_ready(recorder.stack.http_url, deployer, state_dir)
    recorder.stack.is_complete = True
    recorder.save()


def _assign_addresses(settings: Settings, state_dir: StateDirectory, recorder: StackState) -> None:
    """Assign every address before anything runs: Ray's environment contains them all."""
    assign_addresses(settings, state_dir, recorder.stack)
    assign_ports(recorder.stack, PORTS)
    assign_socket_dir(recorder.stack)
    recorder.stack.http_url = http_url(settings)
    recorder.save()


def _start_ray(
    settings: Settings, state_dir: StateDirectory, recorder: StackState, steps: Progress
) -> None:
    with steps.step("Starting Ray", "Ray is up"):
        process = ray_head.start(settings, state_dir, recorder.stack)
        recorder.add(process)
        ray_head.wait_until_ready(state_dir, process)


def _start_database(
    settings: Settings, state_dir: StateDirectory, recorder: StackState, steps: Progress
) -> None:
    if not settings.database_url:
        start_postgres(state_dir, recorder, steps)
    migrate(recorder.stack.database_url, steps)


def _wait_until_ready(url: str, deployer: ProcessRecord, state_dir: StateDirectory) -> None:
    """Wait, with a time-out, until the deployer has succeeded and GET /readyz is 200."""
    readiness = Readiness(is_ready=False)

    def ready_or_failed() -> bool:
        nonlocal readiness
        if is_alive(deployer):
            return False
        if not _deployer_is_done(state_dir):
            return True
        readiness = fetch_readiness(url)
        return readiness.is_ready

    if not wait_until(ready_or_failed, timeout_s=_READY_TIMEOUT_S):
        raise StackError(
            f"The service is not ready after {_READY_TIMEOUT_S:.0f} s ({readiness.summary}). "
            f"See `wallet logs` ({state_dir.logs})."
        )
    if not readiness.is_ready:
        log = state_dir.log_of("deploy")
        reported = (
            last_matching_line(log, "Error")
            or last_matching_line(log, "")
            or "no message in its log"
        )
        raise StackError(f"The service could not be deployed: {reported} (see {log}).")


def _deployer_is_done(state_dir: StateDirectory) -> bool:
    return bool(last_matching_line(state_dir.log_of("deploy"), DONE_MARKER))


def _check_bind_policy(settings: Settings, steps: Progress) -> None:
    refusal = bind_policy_error(settings, settings.http_host)
    if refusal is not None:
        raise StackError(refusal)
    if is_exposed_unauthenticated(settings, settings.http_host):
        steps.message(
            f"Authentication is off on {settings.http_host}:{settings.http_port}: anyone who "
            "can connect can move money"
        )


def _check_port_free(settings: Settings) -> None:
    port = settings.http_port
    if is_free(port, settings.http_host):
        return
    raise StackError(
        f"Port {port} on {settings.http_host} is in use{_port_owner(port)}. Stop that process, "
        "or choose another port with WALLET_HTTP_PORT."
    )


def _port_owner(port: int) -> str:
    """` by NAME (pid N)`; empty if unknown, for instance for another user's process."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""
