"""Installs this checkout into the running environment, with the `wallet` command.

Like `pip install --editable`, without a build tool to install first:

    .venv/bin/python -m deploy.local.install_checkout
"""

import sys
import sysconfig
from pathlib import Path

_LAUNCHER = """\
#!{python}
import sys

from deploy.cli.main import main

sys.exit(main())
"""


def install(checkout: Path, *, packages: Path, scripts: Path, python: str) -> None:
    """Write the path file into `packages` and the command into `scripts`."""
    (packages / "wallet-service.pth").write_text(f"{checkout}\n", encoding="utf-8")
    launcher = scripts / "wallet"
    launcher.write_text(_LAUNCHER.format(python=python), encoding="utf-8")
    launcher.chmod(0o755)


if __name__ == "__main__":
    install(
        Path(__file__).resolve().parents[2],
        packages=Path(sysconfig.get_path("purelib")),
        scripts=Path(sysconfig.get_path("scripts")),
        python=sys.executable,
    )
