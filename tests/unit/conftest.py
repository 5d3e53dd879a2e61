"""Unit tests use nothing outside their process (no Ray, no other machine) and never sleep."""

import asyncio
import ipaddress
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import ray

from tests.support.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test in an event loop with virtual time."""
    return {"virtual_time": VirtualTimeLoop}


@pytest.fixture(autouse=True)
def _nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise AssertionError(f"a unit test tried to connect to {address}")
        connect(self, address)

    def no_ray(*_args: object, **_options: object) -> None:
        raise AssertionError("a unit test tried to start Ray")

    monkeypatch.setattr(socket.socket, "connect", loopback_only)
    monkeypatch.setattr(ray, "init", no_ray)


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep

    def no_sleep(seconds: float) -> None:
        # The standard library waits like this for the end of a process that a test started.
        if seconds > 0 and sys._getframe(1).f_globals["__name__"] != "subprocess":
            raise AssertionError(f"a unit test tried to sleep for {seconds} s: inject the clock")
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", no_sleep)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a host name that needs DNS
