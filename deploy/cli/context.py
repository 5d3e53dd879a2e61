"""What every `wallet` command needs: settings, the state directory, a console."""

from pydantic import ValidationError
from rich.console import Console

from deploy.local.errors import StackError
from deploy.local.state_dir import StateDirectory
from runtime.settings import PREFIX, Settings


def settings() -> Settings:
    """Settings from the environment; StackError names the first invalid one."""
    try:
        return Settings()
    except ValidationError as wrong:
        first = wrong.errors()[0]
        if not first["loc"]:
            raise StackError(f"Invalid settings: {first['msg']}.") from wrong
        name = f"{PREFIX}{'_'.join(str(part) for part in first['loc'])}".upper()
        given = "" if _is_secret(name) else f" {str(first['input'])!r}"
        raise StackError(f"Invalid value{given} for {name}: {first['msg']}.") from wrong


def _is_secret(name: str) -> bool:
    return name.endswith("_URL")


def state_dir() -> StateDirectory:
    return StateDirectory.of_this_checkout()


def console() -> Console:
    return Console()
