"""Check a wallet service's data, while it runs: python -m verification [--nats-url …]"""

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
    nats_url: Annotated[str, typer.Option(help="Check the stream, too, on this NATS server.")] = "",
    stream: Annotated[
        str, typer.Option(envvar="WALLET_STREAM_NAME", help="Name of the stream.")
    ] = _DEFAULTS.stream_name,
    history: Annotated[
        Path | None, typer.Option(help="Recorded calls of clients: one JSON object a line.")
    ] = None,
    lag_max_s: Annotated[
        float,
        typer.Option(min=0, help="Projections that lag for less are told of, not counted."),
    ] = 300.0,
) -> None:
    """Judge the journal, the rows, the keys and the projections, range by range in snapshots.

    Exit code 0: nothing is wrong; 1: something is, with a line for each wallet and breach; 2: it
    could not be checked.
    """
    if not database_url:
        typer.echo("Say which database: --database-url or WALLET_DATABASE_URL.", err=True)
        raise typer.Exit(EXIT_ERROR)
    options = Options(
        database_url=database_url,
        nats_url=nats_url,
        stream=stream,
        history=history,
        lag_max_s=lag_max_s,
    )
    sys.exit(run(options, Console(), Console(stderr=True)))


if __name__ == "__main__":
    typer.run(main)
