"""Frames on a byte stream: decoded correctly in any chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rpc.framing import FrameDecoder, FrameError, FrameKind, encode_frame

FRAMES = st.lists(
    st.tuples(st.sampled_from(FrameKind), st.integers(0, 2**32 - 1), st.binary(max_size=40)),
    max_size=6,
)


@given(FRAMES, st.integers(1, 30))
def test_what_was_sent_arrives_however_it_is_cut(
    sent: list[tuple[FrameKind, int, bytes]], piece: int
) -> None:
    stream = b"".join(encode_frame(*one) for one in sent)
    reader = FrameDecoder(bytes_max=40)
    arrived: list[tuple[int, int, bytes]] = []
    for start in range(0, len(stream), piece):
        arrived += reader.feed(stream[start : start + piece])
    assert arrived == sent


def test_a_frame_that_is_too_large_is_refused_before_it_has_arrived() -> None:
    reader = FrameDecoder(bytes_max=10)
    beginning = encode_frame(FrameKind.CALL, 1, b"x" * 11)[:9]
    with pytest.raises(FrameError, match="11 bytes"):
        list(reader.feed(beginning))
