"""Stops what a stack started: in order, bounded, and nothing else."""

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
    settings: Settings, home: StateDirectory, recorder: StackState, steps: Progress
) -> bool:
    """Stop everything that runs; false if nothing did.

    First the front door closes and what is in flight gets its answer; then Ray ends; then the
    servers that those answers were written to.
    """
    living = recorder.stack.alive_processes()
    if "ray" in living and recorder.stack.is_complete:
        _drain(settings, home, recorder, steps)
    if "ray" in living:
        with steps.step("Stopping Ray", "Ray has stopped"):
            ray_head.stop_head(living["ray"])
    strays = _kill_orphans(recorder, steps)
    for name, (title, stop_server) in _SERVERS.items():
        if name in living:
            with steps.step(f"Stopping {title}", f"{title} has stopped"):
                stop_server(living[name])
    recorder.stack.processes.clear()
    recorder.stack.is_complete = False
    recorder.save()
    return bool(living) or strays


def _drain(settings: Settings, home: StateDirectory, recorder: StackState, steps: Progress) -> None:
    with steps.step("Letting requests finish", "Requests in flight are answered"):
        child = spawn_deployer("drain", settings, home)
        recorder.add(child)
        bound_s = settings.drain_timeout_s + _DRAIN_MARGIN_S
        if not wait_until(lambda: not is_alive(child), timeout_s=bound_s):
            steps.message(f"The service did not drain within {bound_s:.0f} s: stopping it anyway")


def _kill_orphans(recorder: StackState, steps: Progress) -> bool:
    """End children that an interrupted command left, and orphans that Ray's own end left."""
    servers = {
        process.pid for process in recorder.stack.processes.values() if process.name in _SERVERS
    }
    for name, process in recorder.stack.alive_processes().items():
        if name not in _SERVERS:
            stop(process)
    strays = [
        stray
        for stray in processes_with_env(STACK_VARIABLE, recorder.stack.id)
        if stray.pid not in servers
    ]
    if strays:
        steps.message(f"{len(strays)} process(es) left over from an earlier start ended")
        kill(strays)
    return bool(strays)
