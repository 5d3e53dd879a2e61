"""What every `wallet` command begins with: settings, the home, a console."""

from pydantic import ValidationError
from rich.console import Console

from deploy.local.errors import StackError
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings


def settings() -> Settings:
    """The settings of the environment; StackError names the first that is wrong."""
    try:
        return Settings()
    except ValidationError as wrong:
        first = wrong.errors()[0]
        name = f"WALLET_{'_'.join(str(part) for part in first['loc'])}".upper()
        raise StackError(f"Invalid value for {name}: {first['msg']}.") from wrong


def home() -> StateDirectory:
    return StateDirectory.of_this_checkout()


def console() -> Console:
    return Console()
