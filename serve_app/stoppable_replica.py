"""A replica that has been stopped is unhealthy, so that it is replaced whoever asks."""


class StoppableReplica:
    """Fails the health checks of Serve once it has been shut down.

    Serve stops a replica in two steps: the replica closes its port and is destroyed here, and then
    the controller ends its process. If the controller is lost in between, the next one finds a
    process that still answers and takes it for a running replica, for ever
    (`specification/decisions/0086-a-stopped-replica-is-unhealthy.md`).
    """

    _is_stopped = False

    async def check_health(self) -> None:
        """Called by Serve.

        Raises:
            RuntimeError: it was stopped.
        """
        if self._is_stopped:
            raise RuntimeError("this replica was stopped, and its process should have ended")

    def __del__(self) -> None:
        """Called by Serve as the last step of a graceful shutdown."""
        self._is_stopped = True
