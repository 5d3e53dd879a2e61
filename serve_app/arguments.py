"""`args` of the applications in a Serve configuration."""

from typing import Any, Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runtime.settings import Settings

SECRETS: Final = frozenset({"database_url", "nats_url"})
"""Settings whose value may contain a password."""


class ApplicationArguments(Settings):
    """`args` of an application in deploy/serve.yaml: settings, which take precedence over the
    environment of the nodes. Unknown names are rejected."""

    model_config = SettingsConfigDict(extra="forbid")

    revision: str = Field(
        default="",
        description="Any text. Serve doesn't redeploy an unchanged application: change this to "
        "redeploy, for new code or a new password.",
    )

    def settings(self) -> Settings:
        return Settings.model_validate(self.model_dump(exclude={"revision"}))

    def without_inherited_secrets(self) -> dict[str, Any]:
        """All settings but the secrets that come from the environment, where each node has them.

        Serve keeps what an actor is created with, and its API shows it.
        """
        environment = Settings()
        inherited = {name for name in SECRETS if getattr(self, name) == getattr(environment, name)}
        return self.settings().model_dump(exclude={"revision", *inherited})
