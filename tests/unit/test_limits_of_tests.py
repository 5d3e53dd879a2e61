"""What every test keeps to."""

import pytest


def test_a_unit_test_times_out_after_thirty_seconds(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("timeout")
    assert marker is not None
    assert marker.args == (30,)
