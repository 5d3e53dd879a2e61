"""Headers by name: made once per request."""

from serve_app.http.headers import header_of, headers_of

RAW = [(b"accept", b"a/b"), (b"x-request-id", b"first"), (b"x-request-id", b"second")]


def test_the_first_value_of_a_repeated_header_counts() -> None:
    assert headers_of({"headers": RAW}) == {b"accept": b"a/b", b"x-request-id": b"first"}
    assert header_of({"headers": RAW}, b"x-request-id") == "first"


def test_headers_are_read_once_per_request() -> None:
    scope = {"headers": list(RAW)}
    assert header_of(scope, b"accept") == "a/b"
    scope["headers"].clear()
    assert header_of(scope, b"accept") == "a/b"
    assert header_of(scope, b"other") is None


def test_a_value_outside_of_ascii_is_decoded_as_latin_1() -> None:
    assert header_of({"headers": [(b"x-request-id", b"\xfc")]}, b"x-request-id") == "ü"
