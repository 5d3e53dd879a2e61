"""Check the data of a running wallet service: python -m verification [--nats-url …]"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from runtime.settings import Settings
from verification.runner import EXIT_ERROR, Options, run

_DEFAULTS = Settings.model_construct()


def main(
    database_url: Annotated[
        str, typer.Option(envvar="WALLET_DATABASE_URL", help="Postgres to check.")
    ] = "",
    nats_url: Annotated[str, typer.Option(help="NATS server; also checks the stream.")] = "",
    stream: Annotated[
        str, typer.Option(envvar="WALLET_STREAM_NAME", help="Stream name.")
    ] = _DEFAULTS.stream_name,
    history: Annotated[
        Path | None, typer.Option(help="Recorded client calls, one JSON object per line.")
    ] = None,
    lag_max_s: Annotated[
        float,
        typer.Option(min=0, help="A smaller projection lag is reported, but is no violation."),
    ] = 300.0,
    against: Annotated[
        Path | None,
        typer.Option(help="Digest file: also prove that nothing up to it was changed."),
    ] = None,
) -> None:
    """Check the journal, rows, idempotency keys and projections, range by range in snapshots.

    Exit code 0: no violations; 1: violations, one line per wallet and kind; 2: the check failed.
    """
    if not database_url:
        typer.echo("Error: no database. Set --database-url or WALLET_DATABASE_URL.", err=True)
        raise typer.Exit(EXIT_ERROR)
    options = Options(
        database_url=database_url,
        nats_url=nats_url,
        stream=stream,
        history=history,
        lag_max_s=lag_max_s,
        against=against,
    )
    sys.exit(run(options, Console(), Console(stderr=True)))


if __name__ == "__main__":
    typer.run(main)
