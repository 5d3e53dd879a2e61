"""Runs a function in a daemon thread, so that Ctrl-C still ends the command.

An executor of the standard library would make the interpreter wait for its threads at exit.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class BackgroundThread(Generic[Result]):
    """Runs a function in its own thread, from construction on."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._result: list[Result] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def result(self) -> Result:
        """Wait for the function; return its result or raise its exception.

        This wait is unbounded: the function must bound its own waits.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._result[0]

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._result.append(work())
        except BaseException as failure:  # noqa: BLE001  # raised again by result()
            self._failure = failure
