"""The format of API keys; secrets are not stored."""

import re

import pytest

from serve_app.auth.api_key import generate, granted_scopes, hash_of, parse_credential


def test_a_key_is_recognised_by_secret_scanners() -> None:
    assert re.fullmatch(r"wk_[0-9a-f]{16}_[0-9a-f]{64}", generate().text)


def test_two_keys_share_neither_id_nor_secret() -> None:
    one, other = generate(), generate()

    assert one.key_id != other.key_id
    assert one.secret_hash != other.secret_hash


def test_what_is_kept_of_a_key_does_not_open_anything() -> None:
    key = generate()
    secret = key.text.rpartition("_")[2]

    assert key.secret_hash == hash_of(secret.encode())
    assert secret not in key.secret_hash.hex()
    forged = parse_credential(f"wk_{key.key_id}_{key.secret_hash.hex()}".encode())
    assert forged is not None
    assert forged.secret_hash != key.secret_hash


def test_a_key_that_is_sent_is_the_key_that_was_made() -> None:
    key = generate()

    assert parse_credential(key.text.encode()) == (key.key_id, key.secret_hash)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "0",
        lambda text: text.upper(),
        lambda text: text.replace("wk_", "sk_"),
        lambda text: text.replace("_", "-"),
        lambda text: text + "\n",
        lambda text: "",
    ],
)
def test_what_has_another_shape_is_no_key(change: object) -> None:
    assert parse_credential(change(generate().text).encode()) is None  # type: ignore[operator]  # a str method


def test_an_admin_may_do_everything_and_others_what_they_were_given() -> None:
    assert granted_scopes(["admin"]) == {"admin", "wallets:read", "wallets:write"}
    assert granted_scopes(["wallets:write"]) == {"wallets:write"}
