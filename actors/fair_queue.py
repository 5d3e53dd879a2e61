"""A bounded queue that is fair between wallets. Dispatcher and mailbox each have one.

Requests of one wallet leave in FIFO order. Between wallets it is round robin: after its turn a
wallet goes behind those that wait. While other wallets compete, a turn gives a wallet no more than
its quota. All bounds count commands, of which a request has one or more; a request is never split.

The queue has no clock and no event loop: its owner passes the blocked wallets and the quota.
"""

from collections import OrderedDict, deque
from collections.abc import Container, Iterable
from enum import Enum, auto
from typing import Generic, TypeVar

from wallet.ids import WalletId

T = TypeVar("T")


class Overflow(Enum):
    """Which bound a request would exceed."""

    QUEUE = auto()
    WALLET = auto()


class Taken(Generic[T]):
    """The requests of one take, in order. An empty one is false."""

    __slots__ = ("over_quota", "requests", "wallets")

    def __init__(self) -> None:
        self.requests: list[T] = []
        self.wallets: dict[WalletId, int] = {}
        """Whose requests these are, and how many commands they have."""
        self.over_quota: set[WalletId] = set()
        """Of these wallets, those whose quota ended their turn, not a lack of requests."""

    def __bool__(self) -> bool:
        return bool(self.requests)

    def share_of(self, wallet_id: WalletId) -> float:
        """The wallet's share of the commands."""
        return self.wallets[wallet_id] / sum(self.wallets.values())


class FairQueue(Generic[T]):
    """Requests by wallet, at most ``commands_max``, and ``wallet_commands_max`` of one wallet."""

    __slots__ = ("_commands_max", "_queues", "_wallet_commands_max", "commands")

    def __init__(self, *, commands_max: int, wallet_commands_max: int) -> None:
        self._commands_max = commands_max
        self._wallet_commands_max = wallet_commands_max
        self._queues: OrderedDict[WalletId, _WalletQueue[T]] = OrderedDict()
        """None is empty; the next turn is that of the first."""
        self.commands = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def wallet_commands(self, wallet_id: WalletId) -> int:
        """Commands of one wallet that are queued."""
        queue = self._queues.get(wallet_id)
        return queue.commands if queue is not None else 0

    def overflow(self, wallet_id: WalletId, commands: int) -> Overflow | None:
        """Why a request of so many ``commands`` does not fit. A lone one always fits."""
        return self._overflow(self._queues.get(wallet_id), commands)

    def put(self, wallet_id: WalletId, request: T, commands: int) -> Overflow | None:
        """Queue ``request``, which has so many ``commands``, unless it exceeds a bound."""
        queue = self._queues.get(wallet_id)
        if (overflow := self._overflow(queue, commands)) is not None:
            return overflow
        if queue is None:
            queue = self._queues[wallet_id] = _WalletQueue()
        queue.requests.append((request, commands))
        queue.commands += commands
        self.commands += commands
        return None

    def _overflow(self, queue: "_WalletQueue[T] | None", commands: int) -> Overflow | None:
        if self.commands and self.commands + commands > self._commands_max:
            return Overflow.QUEUE
        if queue is not None and queue.commands + commands > self._wallet_commands_max:
            return Overflow.WALLET
        return None

    def take(
        self,
        *,
        capacity: int,
        quota: int,
        lone_quota: int | None = None,
        blocked: Container[WalletId] = frozenset(),
    ) -> Taken[T]:
        """Remove and return up to ``capacity`` commands of wallets that are not ``blocked``.

        Each wallet gets up to ``quota`` commands; up to ``lone_quota``, if given, once no other
        wallet waits. The first request always fits, and so does a wallet's first one if there is
        capacity for it. A wallet for whose first request there is none keeps its turn.
        """
        taken: Taken[T] = Taken()
        lone_quota = quota if lone_quota is None else lone_quota
        room, waiting = capacity, len(self._queues)
        for wallet_id, queue in self._queues.items():
            if wallet_id in blocked:
                continue
            used, over_quota = queue.move_to(
                taken.requests, room, quota if waiting > 1 else lone_quota
            )
            if not used:
                break
            taken.wallets[wallet_id] = used
            if over_quota:
                taken.over_quota.add(wallet_id)
            if not queue.requests:
                waiting -= 1
            room -= used
            if room <= 0:
                break
        self.commands -= capacity - room
        self._end_turns(taken.wallets)
        return taken

    def _end_turns(self, wallets: Iterable[WalletId]) -> None:
        for wallet_id in wallets:
            if self._queues[wallet_id].requests:
                self._queues.move_to_end(wallet_id)
            else:
                del self._queues[wallet_id]


class _WalletQueue(Generic[T]):
    """One wallet's requests, each with its number of commands. ``commands`` is their sum."""

    __slots__ = ("commands", "requests")

    def __init__(self) -> None:
        self.requests: deque[tuple[T, int]] = deque()
        self.commands = 0

    def move_to(self, taken: list[T], room: int, quota: int) -> tuple[int, bool]:
        """Append to ``taken`` what fits; how many commands that is, and whether the quota ended
        it."""
        used = 0
        over_quota = False
        requests = self.requests
        while requests:
            request, commands = requests[0]
            if taken and used + commands > room:
                break
            if used and used + commands > quota:
                over_quota = True
                break
            requests.popleft()
            taken.append(request)
            used += commands
        self.commands -= used
        return used, over_quota
