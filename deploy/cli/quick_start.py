"""What `wallet up` prints when the service is ready."""

import sys

from rich.console import Console

_JSON = "-H 'content-type: application/json'"
_CREATE = "curl -X POST {url}/v1/wallet{key} " + _JSON + " -d '{{}}'"
_DEBIT = (
    "curl -X POST {url}/v1/wallet/WALLET_ID/transfers/debit{key} "
    + _JSON
    + ' -d \'{{"amount": "10.00", "status": "completed"}}\''
)
_READ = "curl {url}/v1/wallet/WALLET_ID{key}"

_KEY = ' -H "Authorization: Bearer $KEY"'
_MAKE_KEY = "KEY=$({wallet} keys create me --scope wallets:read --scope wallets:write)"


def print_quick_start(
    console: Console, url: str, *, events: str, already: bool, keys: bool
) -> None:
    """Print the service's addresses, its documentation, and example requests.

    ``events``: the address of NATS. ``keys``: authentication is on, so the examples create an API
    key and send it.
    """
    state = "is already up" if already else "is up"
    lines = [
        "",
        f"The wallet service {state}: [bold]{url}[/bold]",
        f"Documentation: {url}/docs",
        "Something to look at: `wallet demo` (make demo)",
        f"Events: {events} (`wallet events credentials`, `wallet events tail`)",
        "",
        "Example requests (a debit puts money INTO the wallet, a credit takes it OUT):",
        "",
    ]
    for line in lines:
        console.print(line, highlight=False)
    shown = [template.format(url=url, key=_KEY if keys else "") for template in _TEMPLATES]
    if keys:
        program = sys.argv[0] if sys.argv[0].endswith("wallet") else "wallet"
        shown.insert(0, _MAKE_KEY.format(wallet=program))
    for line in shown:
        # Not wrapped, so that each command can be copied as one line.
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print("")


_TEMPLATES = (_CREATE, _DEBIT, _READ)
