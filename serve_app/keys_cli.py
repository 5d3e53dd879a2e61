"""`wallet keys …`: a thin layer over serve_app.keys.commands, imported where it is needed."""

from typing import Annotated

import typer

from serve_app.cli_context import console, home, settings

app = typer.Typer(
    help="API keys: make, list and revoke them, and see which of them made what.",
    no_args_is_help=True,
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is: shown in lists.")],
    scope: Annotated[
        list[str],
        typer.Option(help="wallets:read, wallets:write or admin; may be given several times."),
    ],
    expires_in_days: Annotated[
        float | None, typer.Option(help="Days until it ends by itself. Default: never.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Requests a second that one ingress replica takes from it; 0: no limit. "
            "Default: WALLET_API_KEY_RATE_PER_S.",
        ),
    ] = None,
) -> None:
    """Make a key and print it: alone on standard output, and only this once."""
    from serve_app.keys.commands import Wanted
    from serve_app.keys.commands import create as make

    wanted = Wanted(
        name=name, scopes=tuple(scope), expires_in_days=expires_in_days, rate_per_s=rate
    )
    key = make(settings(), home(), wanted)
    typer.echo(
        f"Made the key {key.key_id} ({name}). Keep what follows: it can't be shown again.", err=True
    )
    typer.echo(key.text)


@app.command(name="list")
def list_keys() -> None:
    """List every key that ever was, with its scopes, state and last use. Secrets aren't known."""
    from serve_app.keys.commands import show

    show(settings(), home(), console())


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `list` shows it.")],
) -> None:
    """Revoke a key, for ever. Replicas stop taking it within WALLET_API_KEY_CACHE_TTL_S."""
    from serve_app.keys.commands import revoke as end

    end(settings(), home(), key_id, console())


@app.command()
def who(
    wallet_id: Annotated[str, typer.Argument(help="A wallet's id.")],
    transfer: Annotated[str | None, typer.Option(help="Only what was done to this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Latest events.")] = 20,
) -> None:
    """Show which key made each of a wallet's latest events, from the journal."""
    from serve_app.keys.commands import who as show_who

    show_who(settings(), home(), wallet_id, transfer, limit, console())
