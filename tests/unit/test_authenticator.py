"""The authenticator: who is allowed, and error responses that never echo the credentials."""

import asyncio
import hmac
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import Request

from serve_app.auth.api_key import generate
from serve_app.auth.authenticated_request import api_key_id_of, continue_stream, count_items
from serve_app.auth.authenticator import RateLimit
from serve_app.http.problems import ProblemError, problem_response
from tests.support.keys import MADE_AT, AuthFixture, make_scope, with_key


async def refusal(admitting: Awaitable[Any]) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await admitting
    return caught.value


async def test_a_good_key_passes_and_is_known_by_its_public_id() -> None:
    world = AuthFixture()
    key = world.keys.make()
    scope = with_key(key)

    await world.authenticator.authenticate(scope, "wallets:write")

    assert api_key_id_of(Request(scope)) == key.key_id


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
async def test_the_scheme_is_case_insensitive(scheme: str) -> None:
    world = AuthFixture()

    await world.authenticator.authenticate(
        make_scope(scheme + world.keys.make().text), "wallets:read"
    )


async def test_without_a_key_nobody_passes() -> None:
    problem = await refusal(AuthFixture().authenticator.authenticate(make_scope(), "wallets:read"))

    assert problem.code == "key_required"
    assert problem.headers == {"WWW-Authenticate": 'Bearer realm="wallet"'}


@pytest.mark.parametrize(
    "sent",
    ["", "Bearer", "Bearer ", "Bearer x", "Basic dXNlcjpwYXNz", "Bearer wk_1_2", "Bearer \xff\xfe"],
)
async def test_what_is_no_key_does_not_pass_and_asks_nobody(sent: str) -> None:
    world = AuthFixture()

    problem = await refusal(world.authenticator.authenticate(make_scope(sent), "wallets:read"))

    assert problem.code == "key_invalid"
    assert problem.headers["WWW-Authenticate"] == 'Bearer realm="wallet", error="invalid_token"'
    assert world.keys.queries == []


async def test_two_keys_at_once_do_not_pass_even_if_both_are_good() -> None:
    world = AuthFixture()
    both = [f"Bearer {world.keys.make().text}" for _ in range(2)]

    assert (
        await refusal(world.authenticator.authenticate(make_scope(*both), "wallets:read"))
    ).code == "key_invalid"


async def test_the_right_id_with_another_secret_does_not_pass() -> None:
    world = AuthFixture()
    good, other = world.keys.make(), generate()
    forged = f"wk_{good.key_id}_{other.text.rpartition('_')[2]}"

    problem = await refusal(
        world.authenticator.authenticate(make_scope(f"Bearer {forged}"), "wallets:read")
    )

    assert problem.code == "key_invalid"
    assert problem.detail == "Unknown API key."


async def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = AuthFixture()
    key = world.keys.make()
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)

    assert (
        await refusal(world.authenticator.authenticate(with_key(key), "wallets:read"))
    ).code == "key_invalid"
    assert compared == [(key.secret_hash, key.secret_hash)]


async def test_a_revoked_key_does_not_pass() -> None:
    world = AuthFixture()
    key = world.keys.make(revoked_at=MADE_AT)

    problem = await refusal(world.authenticator.authenticate(with_key(key), "wallets:read"))

    assert (problem.code, problem.detail) == ("key_invalid", "This key was revoked.")


async def test_a_key_expires_at_its_moment_though_it_is_remembered() -> None:
    world = AuthFixture()
    key = world.keys.make(expires_at=MADE_AT + timedelta(seconds=2))
    await world.authenticator.authenticate(with_key(key), "wallets:read")

    world.now.now_s += 2
    problem = await refusal(world.authenticator.authenticate(with_key(key), "wallets:read"))

    assert (problem.code, problem.detail) == ("key_invalid", "This key has expired.")
    assert len(world.keys.queries) == 1


async def test_a_key_is_for_what_it_was_made_for() -> None:
    world = AuthFixture()
    key = world.keys.make("wallets:read")
    await world.authenticator.authenticate(with_key(key), "wallets:read")

    problem = await refusal(world.authenticator.authenticate(with_key(key), "wallets:write"))

    assert problem.code == "scope_missing"
    assert 'error="insufficient_scope"' in problem.headers["WWW-Authenticate"]
    assert 'scope="wallets:write"' in problem.headers["WWW-Authenticate"]


async def test_an_admin_opens_everything_and_others_not_what_is_for_admins() -> None:
    world = AuthFixture()

    assert await world.authenticator.is_allowed(with_key(world.keys.make("admin")), "admin")
    assert await world.authenticator.is_allowed(with_key(world.keys.make("admin")), "wallets:write")
    assert not await world.authenticator.is_allowed(with_key(world.keys.make()), "admin")
    assert not await world.authenticator.is_allowed(make_scope(), "admin")


async def test_while_nobody_knows_whether_a_key_is_good_it_does_not_pass() -> None:
    world = AuthFixture()
    key = world.keys.make()
    world.keys.is_away = True

    problem = await refusal(world.authenticator.authenticate(with_key(key), "wallets:read"))

    assert (problem.code, problem.applied) == ("unavailable", "no")
    assert problem.headers["Retry-After"] == "1"


async def test_no_refusal_repeats_what_was_sent() -> None:
    world = AuthFixture(RateLimit(rate_per_s=0.001, burst_s=1.0))
    unknown, revoked = generate(), world.keys.make(revoked_at=MADE_AT)
    narrow = world.keys.make("wallets:read")
    await world.authenticator.authenticate(with_key(narrow), "wallets:read")
    cases = [
        (with_key(unknown), "wallets:read"),
        (with_key(revoked), "wallets:read"),
        (with_key(narrow), "wallets:write"),
        (with_key(narrow), "wallets:read"),  # too often
        (make_scope(f"Bearer {unknown.text}0"), "wallets:read"),
        (make_scope(f"Basic {unknown.text}"), "wallets:read"),
    ]
    secrets = [key.text.rpartition("_")[2] for key in (unknown, revoked, narrow)]

    for scope, needed in cases:
        problem = await refusal(world.authenticator.authenticate(scope, needed))  # type: ignore[arg-type]  # a dict is a scope
        response = problem_response(problem, "r1")
        reported = bytes(response.body) + repr(response.raw_headers).encode()
        assert not [secret for secret in secrets if secret.encode() in reported], problem.code


async def test_a_key_over_its_rate_limit_gets_a_retry_after() -> None:
    world = AuthFixture(RateLimit(rate_per_s=0.5, burst_s=4.0))
    key = world.keys.make()
    for _ in range(2):
        await world.authenticator.authenticate(with_key(key), "wallets:read")

    problem = await refusal(world.authenticator.authenticate(with_key(key), "wallets:read"))
    assert problem.code == "rate_limited"
    assert problem.headers["Retry-After"] == "2"

    world.clock.now_s += 2
    await world.authenticator.authenticate(with_key(key), "wallets:read")


async def test_one_keys_rate_is_not_anothers_and_its_own_outranks_the_settings() -> None:
    world = AuthFixture(RateLimit(rate_per_s=1, burst_s=1.0))
    slow, unlimited = world.keys.make(), world.keys.make(rate_per_s=0.0)
    await world.authenticator.authenticate(with_key(slow), "wallets:read")

    assert (
        await refusal(world.authenticator.authenticate(with_key(slow), "wallets:read"))
    ).code == "rate_limited"
    for _ in range(50):
        await world.authenticator.authenticate(with_key(unlimited), "wallets:read")


async def test_a_rate_is_kept_while_the_key_is_read_again() -> None:
    world = AuthFixture(RateLimit(rate_per_s=0.1, burst_s=1.0))
    key = world.keys.make()
    await world.authenticator.authenticate(with_key(key), "wallets:read")

    world.clock.now_s += 4.5  # older than the TTL
    problem = await refusal(world.authenticator.authenticate(with_key(key), "wallets:read"))

    assert problem.code == "rate_limited"
    assert len(world.keys.queries) == 2


async def test_the_items_of_a_batch_count() -> None:
    world = AuthFixture(RateLimit(rate_per_s=10, burst_s=1.0))
    key = world.keys.make()
    scope = with_key(key)
    await world.authenticator.authenticate(scope, "wallets:write")
    count_items(Request(scope), 100)

    problem = await refusal(world.authenticator.authenticate(with_key(key), "wallets:write"))

    assert problem.headers["Retry-After"] == "10"


async def test_a_stream_is_slowed_down_but_waits_no_longer_than_it_may() -> None:
    world = AuthFixture(RateLimit(rate_per_s=100, burst_s=0.01))
    scope = with_key(world.keys.make())
    await world.authenticator.authenticate(scope, "wallets:write")
    request = Request(scope)

    going_on = asyncio.create_task(continue_stream(request, 50, wait_max_s=1.0))
    await asyncio.sleep(0)
    assert not going_on.done()
    world.clock.now_s += 0.02
    await going_on

    assert (await refusal(continue_stream(request, 1, wait_max_s=0.1))).code == "rate_limited"


async def test_a_stream_ends_when_its_key_is_revoked() -> None:
    world = AuthFixture()
    key = world.keys.make()
    scope = with_key(key)
    await world.authenticator.authenticate(scope, "wallets:write")
    await continue_stream(Request(scope), 1, wait_max_s=1.0)

    world.keys.records[key.key_id] = replace(world.keys.records[key.key_id], revoked_at=MADE_AT)
    world.clock.now_s += 4.0

    assert (await refusal(continue_stream(Request(scope), 1, wait_max_s=1.0))).code == "key_invalid"


async def test_where_no_keys_are_asked_for_nobody_made_it_and_nothing_counts() -> None:
    request = Request({"type": "http", "headers": []})

    assert api_key_id_of(request) is None
    count_items(request, 1_000)
    await continue_stream(request, 1_000, wait_max_s=0.0)
