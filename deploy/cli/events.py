"""`wallet events …`: the event stream for people and for consumers."""

from typing import Annotated

import typer

from deploy.cli.context import settings, state_dir

app = typer.Typer(help="Read the event stream.", no_args_is_help=True)


@app.command()
def credentials() -> None:
    """Print the URL of the local NATS server for consumers, with a user that may only read."""
    from deploy.cli.event_commands import reader_url

    typer.echo(reader_url(settings(), state_dir()))


@app.command()
def permissions() -> None:
    """Print that user's permissions, for the configuration of a NATS server of your own."""
    from deploy.cli.event_commands import permissions_of

    typer.echo(permissions_of(settings()))


@app.command()
def tail(
    wallet: Annotated[str, typer.Option(help="Only this wallet.")] = "",
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="VERSION|TIME",
            help="From this version of --wallet, or from this time (RFC 3339). "
            "Default: new events.",
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="The events as they are, one per line.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for new events, until Ctrl-C.")
    ] = True,
) -> None:
    """Print events as they arrive."""
    from deploy.cli.event_commands import tail as run
    from deploy.cli.event_commands import tail_options

    options = tail_options(wallet, start, as_json=as_json, follow=follow)
    try:
        run(settings(), state_dir(), options, typer.echo)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
