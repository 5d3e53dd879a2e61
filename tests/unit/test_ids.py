"""New ids: version 7, in the order of time, and true to the clock however many are made."""

import time
from uuid import RFC_4122, UUID

from wallet.ids import canonical_uuid, new_id


def milliseconds_in(name: str) -> int:
    return UUID(name).int >> 80


def test_a_new_id_is_a_canonical_uuid_of_version_7() -> None:
    made = new_id()
    assert canonical_uuid(made) == made
    assert (UUID(made).version, UUID(made).variant) == (7, RFC_4122)


def test_ids_stay_with_the_clock_and_in_its_order() -> None:
    before = time.time_ns() // 1_000_000
    made = [new_id() for _ in range(20_000)]
    after = time.time_ns() // 1_000_000
    times = [milliseconds_in(one) for one in made]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after
    assert len(set(made)) == len(made)
