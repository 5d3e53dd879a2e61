"""The `wallet keys` commands. Each imports deploy.cli.key_commands only when it runs."""

from typing import Annotated

import typer

from deploy.cli.context import console, settings, state_dir

app = typer.Typer(
    help="Create, list and revoke API keys; show which key made an event.",
    no_args_is_help=True,
)


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key, shown by `list`.")],
    scope: Annotated[
        list[str],
        typer.Option(help="wallets:read, wallets:write or admin. Repeat for several."),
    ],
    expires_in_days: Annotated[
        float | None, typer.Option(help="Days until the key expires. Default: never.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Requests per second, per ingress replica. 0: no limit. "
            "Default: WALLET_API_KEY_RATE_PER_S.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and print it to standard output, once."""
    from deploy.cli.key_commands import CreatedKey, NewKeyOptions, encoded
    from deploy.cli.key_commands import create as make

    options = NewKeyOptions(
        name=name, scopes=tuple(scope), expires_in_days=expires_in_days, rate_per_s=rate
    )
    key = make(settings(), state_dir(), options)
    typer.echo(f"Created key {key.key_id} ({name}). Store it now: it is not shown again.", err=True)
    typer.echo(encoded(CreatedKey(id=key.key_id, key=key.text)) if as_json else key.text)


@app.command(name="list")
def list_keys(as_json: JsonOption = False) -> None:
    """List all keys, including revoked and expired ones, without their secrets."""
    from deploy.cli.key_commands import all_as_json, show

    if as_json:
        typer.echo(all_as_json(settings(), state_dir()))
    else:
        show(settings(), state_dir(), console())


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as shown by `list`.")],
) -> None:
    """Revoke a key permanently. It is rejected within WALLET_API_KEY_CACHE_TTL_S."""
    from deploy.cli.key_commands import revoke as revoke_key

    revoke_key(settings(), state_dir(), key_id, console())


WalletArgument = Annotated[str, typer.Argument(help="Id of the wallet.")]
TransferOption = Annotated[str | None, typer.Option(help="Show only events of this transfer.")]
LimitOption = Annotated[
    int, typer.Option(min=1, max=10_000, help="Number of events, newest first.")
]


@app.command()
def attribution(
    wallet_id: WalletArgument,
    transfer: TransferOption = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """Show which API key made each of a wallet's latest events."""
    from deploy.cli.key_commands import attributed, encoded, show_attribution

    events = attributed(settings(), state_dir(), wallet_id, transfer, limit)
    if as_json:
        typer.echo(encoded(events))
    else:
        show_attribution(events, console())


@app.command(name="who", hidden=True)
def former_who(
    wallet_id: WalletArgument, transfer: TransferOption = None, limit: LimitOption = 20
) -> None:
    """Former name of `wallet keys attribution`, for one release."""
    typer.echo("`wallet keys who` is now called `wallet keys attribution`.", err=True)
    attribution(wallet_id, transfer, limit)
