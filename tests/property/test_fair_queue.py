"""The fair queue, for all sequences of put and take."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.fair_queue import FairQueue, Overflow
from tests.support.domain import wallet_id
from wallet.ids import WalletId

COMMANDS_MAX = 12
WALLET_COMMANDS_MAX = 7
WALLETS = tuple(wallet_id(number) for number in range(4))

Request = tuple[WalletId, int, int]
"""Its wallet, its number, its commands."""


class FairQueueMachine(RuleBasedStateMachine):
    """Compares a queue with one plain list per wallet."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Request] = FairQueue(
            commands_max=COMMANDS_MAX, wallet_commands_max=WALLET_COMMANDS_MAX
        )
        self.model: dict[WalletId, list[Request]] = defaultdict(list)
        self.passed_over: dict[WalletId, set[WalletId]] = defaultdict(set)
        """Per waiting, unblocked wallet: the wallets that had a turn since its last one."""
        self.number = 0

    def commands_of(self, wallet: WalletId) -> int:
        return sum(commands for _, _, commands in self.model[wallet])

    @rule(wallet=st.sampled_from(WALLETS), commands=st.integers(1, 9))
    def put(self, wallet: WalletId, commands: int) -> None:
        self.number += 1
        request = (wallet, self.number, commands)
        queued, of_wallet = self.queue.commands, self.commands_of(wallet)
        expected = None
        if of_wallet and of_wallet + commands > WALLET_COMMANDS_MAX:
            expected = Overflow.WALLET
        if queued and queued + commands > COMMANDS_MAX:
            expected = Overflow.QUEUE
        assert self.queue.overflow(wallet, commands) is expected
        assert self.queue.put(wallet, request, commands) is expected
        if expected is None:
            self.model[wallet].append(request)

    @rule(
        capacity=st.integers(1, 14),
        quota=st.integers(1, 9),
        lone_quota=st.none() | st.integers(1, 14),
        blocked=st.sets(st.sampled_from(WALLETS)),
    )
    def take(
        self, capacity: int, quota: int, lone_quota: int | None, blocked: set[WalletId]
    ) -> None:
        waiting = {wallet for wallet in WALLETS if self.model[wallet]}
        taken = self.queue.take(
            capacity=capacity, quota=quota, lone_quota=lone_quota, blocked=blocked
        )
        by_wallet: dict[WalletId, list[Request]] = defaultdict(list)
        for request in taken.requests:
            by_wallet[request[0]].append(request)
        assert list(by_wallet) == list(taken.wallets), "a wallet has one turn per call"
        assert not blocked & set(taken.wallets)
        for wallet, requests in by_wallet.items():
            assert requests == self.model[wallet][: len(requests)], "in order, without gaps"
            self.model[wallet] = self.model[wallet][len(requests) :]
        assert bool(taken) == bool(waiting - blocked), "every unblocked wallet is served"
        assert sum(taken.wallets.values()) == sum(commands for _, _, commands in taken.requests)
        self.check_sizes(by_wallet, capacity=capacity, quota=quota, lone_quota=lone_quota)
        assert taken.over_quota <= {wallet for wallet in by_wallet if self.model[wallet]}
        self.check_turns(list(taken.wallets), blocked)

    def check_sizes(
        self,
        by_wallet: dict[WalletId, list[Request]],
        *,
        capacity: int,
        quota: int,
        lone_quota: int | None,
    ) -> None:
        requests = [request for one in by_wallet.values() for request in one]
        total = sum(commands for _, _, commands in requests)
        assert total <= capacity or len(requests) == 1
        for wallet, turn in by_wallet.items():
            others_wait = any(self.model[other] for other in WALLETS if other != wallet)
            used = sum(commands for _, _, commands in turn)
            if others_wait or lone_quota is None:
                assert used <= quota or len(turn) == 1, "no more than its quota while others wait"

    def check_turns(self, served: list[WalletId], blocked: set[WalletId]) -> None:
        """No wallet has a second turn while another wallet waits that could have been served."""
        for wallet in WALLETS:
            if wallet in served or wallet in blocked or not self.model[wallet]:
                self.passed_over[wallet].clear()
                continue
            assert not self.passed_over[wallet] & set(served)
            self.passed_over[wallet].update(served)

    @precondition(lambda self: self.queue)
    @rule()
    def take_all(self) -> None:
        while self.queue:
            self.take(5, 2, None, set())

    @invariant()
    def counts_match(self) -> None:
        for wallet in WALLETS:
            assert self.queue.wallet_commands(wallet) == self.commands_of(wallet)
            assert self.commands_of(wallet) <= WALLET_COMMANDS_MAX or len(self.model[wallet]) == 1
        total = sum(self.commands_of(wallet) for wallet in WALLETS)
        assert self.queue.commands == total
        requests = sum(len(self.model[wallet]) for wallet in WALLETS)
        assert total <= COMMANDS_MAX or requests == 1
        assert bool(self.queue) == bool(requests)


TestFairQueue = FairQueueMachine.TestCase


@given(overload=st.integers(1, 200), others=st.integers(1, 6), quota=st.integers(1, 5))
def test_one_request_waits_for_one_turn_of_each_other_wallet(
    overload: int, others: int, quota: int
) -> None:
    """A new request of another wallet is served within two turns, despite an overloaded wallet."""
    queue: FairQueue[str] = FairQueue(commands_max=10_000, wallet_commands_max=10_000)
    for wallet in range(others):
        for _ in range(overload):
            queue.put(wallet_id(wallet), "overload", 1)
    queue.put(wallet_id(99), "single", 1)
    ahead: list[str] = []
    while "single" not in ahead:
        ahead += queue.take(capacity=quota, quota=quota).requests
    assert ahead.index("single") <= others * quota
