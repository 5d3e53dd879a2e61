"""What `wallet up` says when the service is ready."""

from rich.console import Console

_CREATE = "curl -X POST {url}/v1/wallet -H 'content-type: application/json' -d '{{}}'"
_DEBIT = (
    "curl -X POST {url}/v1/wallet/WALLET_ID/transfers/debit -H 'content-type: application/json' "
    '-d \'{{"amount": "10.00", "status": "completed"}}\''
)
_READ = "curl {url}/v1/wallet/WALLET_ID"


def welcome(console: Console, url: str, *, already: bool) -> None:
    """Where the service is, its documentation, and three lines to try."""
    state = "is already up" if already else "is up"
    lines = [
        "",
        f"The wallet service {state}: [bold]{url}[/bold]",
        f"Documentation: {url}/docs",
        "",
        "Try it (a debit puts money INTO the wallet, a credit takes money OUT):",
        "",
    ]
    for line in lines:
        console.print(line, highlight=False)
    for template in (_CREATE, _DEBIT, _READ):
        # Not wrapped: a line that is copied must stay one line.
        console.print(
            f"  {template.format(url=url)}", highlight=False, markup=False, soft_wrap=True
        )
    console.print("")
