"""The actor's class, as Ray takes it to another process."""

import subprocess
import sys
from base64 import b64encode

from runtime.settings import Settings
from serve_app.deployment import api_application

_PROGRAM = """
import asyncio, os, sys
from base64 import b64decode

from ray import cloudpickle

def loaded():
    return {"actors.shard.process", "asyncpg", "nats"}.intersection(sys.modules)

actor_class = cloudpickle.loads(b64decode(sys.stdin.read())).__ray_actor_class__
assert not loaded(), loaded()

async def main():
    actor = actor_class(2, {"database_url": "postgres://127.0.0.1:1/none", "shard_count": 3})
    assert len(loaded()) == 3
    statistics = await actor.statistics()
    assert b'"shard":2' in statistics, statistics
    await actor._process.close()

asyncio.run(main())
print("done", flush=True)
os._exit(0)  # Without waiting for what Ray's exporter began.
"""


def test_a_shard_is_loaded_in_the_actor_s_constructor_and_not_before() -> None:
    settings = Settings(_env_file=None, shard_count=3)
    (first, *_) = api_application(settings)._bound_deployment._deployment_config.deployment_actors
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=b64encode(first._serialized_actor_class),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == [b"done"], done.stderr.decode()[-2_000:]
