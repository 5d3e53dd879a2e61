"""`wallet keys …`: a thin layer over deploy.cli.key_commands, imported where it is needed."""

from typing import Annotated

import typer

from deploy.cli.context import console, home, settings

app = typer.Typer(
    help="Create, list and revoke API keys, and attribute events to them.",
    no_args_is_help=True,
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key, shown in lists.")],
    scope: Annotated[
        list[str],
        typer.Option(help="wallets:read, wallets:write or admin; may be given several times."),
    ],
    expires_in_days: Annotated[
        float | None, typer.Option(help="Days until it expires. Default: never.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Rate limit in requests per second and ingress replica; 0: none. "
            "Default: WALLET_API_KEY_RATE_PER_S.",
        ),
    ] = None,
) -> None:
    """Create a key and print it to standard output. It is shown only once."""
    from deploy.cli.key_commands import NewKeyOptions
    from deploy.cli.key_commands import create as make

    wanted = NewKeyOptions(
        name=name, scopes=tuple(scope), expires_in_days=expires_in_days, rate_per_s=rate
    )
    key = make(settings(), home(), wanted)
    typer.echo(
        f"Created key {key.key_id} ({name}). Store it now: it can't be shown again.", err=True
    )
    typer.echo(key.text)


@app.command(name="list")
def list_keys() -> None:
    """List all keys, revoked and expired ones included. Secrets are not stored."""
    from deploy.cli.key_commands import show

    show(settings(), home(), console())


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `list` shows it.")],
) -> None:
    """Revoke a key permanently. It is rejected within WALLET_API_KEY_CACHE_TTL_S."""
    from deploy.cli.key_commands import revoke as end

    end(settings(), home(), key_id, console())


WalletArgument = Annotated[str, typer.Argument(help="A wallet's id.")]
TransferOption = Annotated[str | None, typer.Option(help="Only events of this transfer.")]
LimitOption = Annotated[int, typer.Option(min=1, max=10_000, help="Latest events.")]


@app.command()
def attribution(
    wallet_id: WalletArgument, transfer: TransferOption = None, limit: LimitOption = 20
) -> None:
    """Show which API key made each of a wallet's latest events, from the journal."""
    from deploy.cli.key_commands import attribute as show_who

    show_who(settings(), home(), wallet_id, transfer, limit, console())


@app.command(name="who", hidden=True)
def former_who(
    wallet_id: WalletArgument, transfer: TransferOption = None, limit: LimitOption = 20
) -> None:
    """Former name of `wallet keys attribution`, for one release."""
    typer.echo("`wallet keys who` is now called `wallet keys attribution`.", err=True)
    attribution(wallet_id, transfer, limit)
