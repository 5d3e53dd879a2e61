"""The two Serve applications and how they are put onto a Ray cluster."""

from wallet.settings import Settings


def deploy_api(settings: Settings) -> None:
    """Deploy the `api` application (ingress replicas and shards) onto the connected cluster."""
    raise NotImplementedError


def deploy_projections(settings: Settings) -> None:
    """Deploy the `projections` application onto the connected cluster."""
    raise NotImplementedError
