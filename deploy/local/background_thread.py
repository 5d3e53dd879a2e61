"""Run a function beside the main thread, and let Ctrl-C end the command all the same.

An executor of the standard library would make the interpreter wait for its threads at exit.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class BackgroundThread(Generic[Result]):
    """A function that runs in a thread of its own from now on."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._result: list[Result] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def result(self) -> Result:
        """Wait for it; its result, or its exception raised here.

        The wait has no bound of its own: the function's own waits have.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._result[0]

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._result.append(work())
        except BaseException as failure:  # noqa: BLE001  # handed to whoever asks for the result
            self._failure = failure
