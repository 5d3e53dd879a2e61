"""The messages of a set of wallets in JetStream: each event once, in version order."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final

import nats
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from wallet.event_codec import SUBJECT_ROOT

READ_MAX: Final = 100_000
"""Number of messages whose ids are read. Of more messages only the last ones are read; all are
counted."""

_TIMEOUT_S: Final = 10.0
_FETCH: Final = 1_000


class StreamState:
    """Reads the service's stream, with a connection that the caller owns."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name

    async def last_sequence(self) -> int:
        """Of the newest message; 0 if there is none."""
        info = await self._client.jetstream(timeout=_TIMEOUT_S).stream_info(self._name)
        return int(info.state.last_seq)

    async def bytes_per_message(self) -> float:
        """What the server stores for a message, on average; 0 if there is none."""
        info = await self._client.jetstream(timeout=_TIMEOUT_S).stream_info(self._name)
        return info.state.bytes / info.state.messages if info.state.messages else 0.0

    async def size(self) -> int:
        """Bytes that the server stores for the stream."""
        info = await self._client.jetstream(timeout=_TIMEOUT_S).stream_info(self._name)
        return int(info.state.bytes)

    async def counts(self, wallets: Collection[str]) -> Counter[str]:
        """Messages of each wallet that are on the stream, by subject, as the server counts."""
        requested = set(wallets)
        one = next(iter(requested)) if len(requested) == 1 else "*"
        found: Counter[str] = Counter()
        offset = 0
        while True:
            page = await self._subjects(f"{SUBJECT_ROOT}.*.{one}.>", offset)
            for subject, count in page.items():
                wallet = subject.split(".")[3]
                if wallet in requested:
                    found[wallet] += count
            offset += len(page)
            if len(page) < _PAGE:
                return found

    async def _subjects(self, subjects_filter: str, offset: int) -> Mapping[str, int]:
        question = json.dumps({"subjects_filter": subjects_filter, "offset": offset})
        answer = await self._client.request(
            f"$JS.API.STREAM.INFO.{self._name}", question.encode(), timeout=_TIMEOUT_S
        )
        state = json.loads(answer.data)["state"]
        subjects: dict[str, int] = state.get("subjects") or {}
        return subjects

    async def violations(
        self, before: Mapping[str, int], after: Mapping[str, int], since: int
    ) -> list[str]:
        """Violations of the order of the events from ``before`` to ``after``.

        ``before`` and ``after`` are the wallets' versions; ``since`` is the stream's last
        sequence at ``before``.
        """
        last = await self.last_sequence()
        is_whole = last - since <= READ_MAX
        reached: dict[str, int] = dict(before) if is_whole else {}
        async for wallet, version in self._ids(max(since, last - READ_MAX) + 1, last):
            if wallet not in after:
                continue
            expected = reached.get(wallet, version - 1) + 1
            if version != expected:
                return [f"wallet {wallet}: version {version} instead of {expected}"]
            reached[wallet] = version
        short = [wallet for wallet, version in reached.items() if version != after[wallet]]
        return [f"the stream ends early for {len(short)} wallets"] if short else []

    async def _ids(self, first: int, last: int) -> AsyncIterator[tuple[str, int]]:
        """Wallet and version of the messages from ``first`` to ``last``, by their ids."""
        if first > last:
            return
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=first,
            ack_policy=AckPolicy.NONE,
            headers_only=True,
            inactive_threshold=30.0,
        )
        jetstream = self._client.jetstream(timeout=_TIMEOUT_S)
        puller = await jetstream.pull_subscribe(
            f"{SUBJECT_ROOT}.>", stream=self._name, config=config
        )
        try:
            pending = 1
            while pending:
                for message in await puller.fetch(_FETCH, timeout=_TIMEOUT_S):
                    pending = message.metadata.num_pending
                    if message.metadata.sequence.stream <= last:
                        # Only headers are read. The id begins with wallet and version.
                        wallet, version, *_ = message.headers["Nats-Msg-Id"].split(":")
                        yield wallet, int(version)
        except TimeoutError:
            return  # the caller compares counts
        finally:
            await puller.unsubscribe()


_PAGE: Final = 100_000
"""Subjects in one answer of the server."""


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[StreamState]:
    """The stream ``name`` of the server at ``url``."""
    client = await nats.connect(url, connect_timeout=5, name="wallet-bench")
    try:
        yield StreamState(client, name)
    finally:
        await client.close()
