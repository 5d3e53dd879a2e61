"""Cleans the JetStream server before a test."""

import nats


async def delete_all_streams(nats_url: str) -> None:
    """Delete every stream, with its messages and consumers."""
    connection = await nats.connect(nats_url, connect_timeout=10, allow_reconnect=False)
    try:
        jetstream = connection.jetstream(timeout=10)
        for stream in await jetstream.streams_info():
            assert stream.config.name
            await jetstream.delete_stream(stream.config.name)
    finally:
        await connection.close()
