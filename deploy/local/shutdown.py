"""Stops the processes of a stack, in order and with time-outs."""

from deploy.local import nats, postgres, ray_head
from deploy.local.deployer_process import spawn_deployer
from deploy.local.processes import is_alive, kill, processes_with_env, stop, wait_until
from deploy.local.progress import Progress
from deploy.local.ray_environment import STACK_VARIABLE
from deploy.local.stack_state import StackState
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings

_DRAIN_MARGIN_S = 45.0  # to start the child on a busy machine, connect, and end Serve
_SERVERS = {"nats": ("NATS", nats.stop_server), "postgres": ("PostgreSQL", postgres.stop_server)}


def stop_stack(
    settings: Settings, state_dir: StateDirectory, recorder: StackState, steps: Progress
) -> bool:
    """Stop everything that runs; false if nothing did.

    First HAProxy stops listening and requests in flight finish. Then Ray stops, then the servers.
    """
    alive = recorder.stack.alive_processes()
    if "ray" in alive and recorder.stack.is_complete:
        _drain(settings, state_dir, recorder, steps)
    if "ray" in alive:
        with steps.step("Stopping Ray", "Ray has stopped"):
            ray_head.stop_head(alive["ray"])
    had_orphans = _kill_orphans(recorder, steps)
    for name, (title, stop_server) in _SERVERS.items():
        if name in alive:
            with steps.step(f"Stopping {title}", f"{title} has stopped"):
                stop_server(alive[name])
    recorder.stack.processes.clear()
    recorder.stack.is_complete = False
    recorder.save()
    return bool(alive) or had_orphans


def _drain(
    settings: Settings, state_dir: StateDirectory, recorder: StackState, steps: Progress
) -> None:
    with steps.step("Draining requests in flight", "Requests in flight have finished"):
        child = spawn_deployer("drain", settings, state_dir)
        recorder.add(child)
        bound_s = settings.drain_timeout_s + _DRAIN_MARGIN_S
        if not wait_until(lambda: not is_alive(child), timeout_s=bound_s):
            steps.message(
                f"Requests did not finish within {bound_s:.0f} s: stopping the service anyway"
            )


def _kill_orphans(recorder: StackState, steps: Progress) -> bool:
    """End the children of an interrupted command, and orphans of Ray."""
    servers = {
        process.pid for process in recorder.stack.processes.values() if process.name in _SERVERS
    }
    for name, process in recorder.stack.alive_processes().items():
        if name not in _SERVERS:
            stop(process)
    orphans = [
        orphan
        for orphan in processes_with_env(STACK_VARIABLE, recorder.stack.id)
        if orphan.pid not in servers
    ]
    if orphans:
        steps.message(f"Killed {len(orphans)} orphaned process(es) of an earlier start")
        kill(orphans)
    return bool(orphans)
