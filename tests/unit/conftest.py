"""Unit tests reach nothing outside their process: no Ray, no other machine."""

import ipaddress
import socket
from typing import Any

import pytest
import ray


@pytest.fixture(autouse=True)
def _nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise AssertionError(f"a unit test wanted to connect to {address}")
        connect(self, address)

    def no_ray(*_args: object, **_options: object) -> None:
        raise AssertionError("a unit test wanted to start Ray")

    monkeypatch.setattr(socket.socket, "connect", loopback_only)
    monkeypatch.setattr(ray, "init", no_ray)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name to look up somewhere
