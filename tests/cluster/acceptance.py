"""What a whole run of the cluster tests has seen."""

from tests.cluster.results import FaultResult
from tests.support.steady_load import SteadyLoad
from verification.facts import ClientCall


class Acceptance:
    """The results in order, and every answer that a client got."""

    def __init__(self) -> None:
        self.results: list[FaultResult] = []
        self.calls: list[ClientCall] = []
        self.audit = ""
        """What the checker said; empty before it has."""

    def check(self, load: SteadyLoad) -> None:
        """Keep the record of a load that has ended; assert that no write is lost or doubled."""
        self.calls += load.calls
        assert load.given_up == 0
        assert load.lost_or_duplicated() == {}
