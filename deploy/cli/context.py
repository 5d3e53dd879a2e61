"""What every `wallet` command needs: settings, the state directory, a console."""

from pydantic import ValidationError
from rich.console import Console

from deploy.local.errors import StackError
from deploy.local.state_dir import StateDirectory
from runtime.settings import Settings


def settings() -> Settings:
    """Settings from the environment; StackError names the first invalid one."""
    try:
        return Settings()
    except ValidationError as wrong:
        first = wrong.errors()[0]
        name = f"WALLET_{'_'.join(str(part) for part in first['loc'])}".upper()
        raise StackError(f"Invalid value for {name}: {first['msg']}.") from wrong


def state_dir() -> StateDirectory:
    return StateDirectory.of_this_checkout()


def console() -> Console:
    return Console()
