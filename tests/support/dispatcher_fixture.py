"""A dispatcher whose shards answer when the test says so."""

import asyncio
from typing import Any, Final

from actors.dispatch.dispatcher import Dispatcher, DispatcherLimits
from actors.rpc.messages import RequestResult
from tests.support.domain import WALLET_ID, transfer_id
from tests.support.scripted_shards import ScriptedShards
from tests.support.write_side import debit
from wallet.commands import CommandItem, CommandRequest

_ITEM: Final = CommandItem(command=debit("1", transfer_id=transfer_id(1)))

Asking = asyncio.Task[RequestResult]


class DispatcherFixture:
    """A dispatcher, its shards, and the callers that wait for it."""

    def __init__(self, **limits: int) -> None:
        self.shards = ScriptedShards()
        self.dispatcher = Dispatcher(
            self.shards,
            DispatcherLimits(
                **{
                    "shard_count": 1,
                    "ingress_queue_max": 100,
                    "ingress_wallet_queue_max": 100,
                    "shard_calls_in_flight_max": 1,
                    "call_commands_max": 50,
                    "call_wallet_commands_max": 50,
                    "shard_unreachable_timeout_s": 60,
                }
                | limits
            ),
        )
        self.asking: list[Asking] = []

    async def request(self, *names: str, **fields: Any) -> list[Asking]:
        """Send requests in one loop iteration; returns when all are queued or in flight."""
        tasks = [
            asyncio.create_task(self.dispatcher.submit(make_command_request(name, **fields)))
            for name in names
        ]
        self.asking += tasks
        await asyncio.sleep(0)  # Each runs until it waits for its reply.
        await asyncio.sleep(0)  # End of the iteration: the queued requests are sent, if allowed.
        return tasks

    async def close(self) -> None:
        for call in self.shards.open:
            if not call.answer.done():
                call.reply()
        for task in self.asking:
            task.cancel()
        await asyncio.gather(*self.asking, return_exceptions=True)


async def let_callbacks_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def make_command_request(name: str, *, items: int = 1, **fields: Any) -> CommandRequest:
    values: dict[str, Any] = {"wallet_id": WALLET_ID, "timeout_s": 5.0, "is_batch": items > 1}
    return CommandRequest(items=(_ITEM,) * items, request_id=name, **values | fields)
