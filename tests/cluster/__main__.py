"""Run the cluster tests in a network of their own: `python -m tests.cluster [pytest's arguments]`.

Everything that a run starts is in new namespaces, of processes as well. They end with the run, even
if it is killed; the machine's own network is not touched.
"""

import os
import sys
from pathlib import Path
from typing import Final

from tests.cluster.network import INSIDE, unavailable_reason

_HERE: Final = Path(__file__).parent
_ISOLATED: Final = (
    "unshare", "--net", "--mount", "--propagation=private", "--pid", "--fork", "--mount-proc",
    "--kill-child",
)  # fmt: skip
_AS_CHILD: Final = '"$@"; exit $?'
"""A shell is the first process: it also collects orphans that end."""


def main(arguments: list[str]) -> None:
    """Replaces this process. Without namespaces the tests skip, and say why."""
    pytest = [sys.executable, "-m", "pytest", str(_HERE), *arguments]
    os.environ.setdefault("WALLET_CLUSTER_TEST", "1")
    if unavailable_reason() is not None:
        os.execv(sys.executable, pytest)
    os.environ[INSIDE] = "1"
    command = [*_ISOLATED, "sh", "-c", _AS_CHILD, "tests.cluster", *pytest]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
