"""The consumers in the documents, run as they stand there."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.api import Api
from tests.support.commands import CHECKOUT
from tests.support.running_service import RunningService

_PAGES = {
    "python": CHECKOUT / "docs" / "using" / "consumers.md",
    "javascript": CHECKOUT / "docs" / "using" / "consumers-javascript.md",
}
_PACKAGES = CHECKOUT / "node_modules" / "@nats-io" / "jetstream"
_IN_TIME_S = 30.0


def _code(language: str) -> str:
    (code,) = re.findall(
        rf"^```{language}\n(.*?)^```$", _PAGES[language].read_text(), re.DOTALL | re.MULTILINE
    )
    return str(code)


class Consumer:
    """How one of them is started."""

    def __init__(self, language: str, folder: Path, service: RunningService) -> None:
        self._folder = folder
        self._service = service
        if language == "python":
            self._command = [sys.executable, str(self._write("consumer.py", language))]
        else:
            (folder / "node_modules").symlink_to(CHECKOUT / "node_modules")
            self._command = ["node", str(self._write("consumer.mjs", language))]
        self.output = folder / "output"

    def _write(self, name: str, language: str) -> Path:
        # A name of its own: other consumers of this service keep their positions.
        path = self._folder / name
        path.write_text(_code(language).replace('"balances"', f'"balances-{language}"'))
        return path

    def start(self, nats_url: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "NATS_URL": nats_url,
            "API_URL": self._service.url,
            "BALANCES": str(self._folder / "balances"),
        }
        with self.output.open("ab") as output:
            return subprocess.Popen(
                self._command, env=environment, cwd=self._folder, stdout=output, stderr=output
            )

    @contextmanager
    def running(self, nats_url: str) -> Iterator[None]:
        process = self.start(nats_url)
        try:
            yield
            assert process.poll() is None, self.output.read_text()
        finally:
            process.kill()
            process.wait()

    def lines_of(self, wallet_id: str) -> list[str]:
        return re.findall(rf"^{wallet_id} (.*)$", self.output.read_text(), re.MULTILINE)

    def wait_for(self, wallet_id: str, balances: list[str]) -> None:
        """Until the last of ``balances`` is reached: each is that of the version after.

        What was sent to the consumer when it was killed comes again after that, or the consumer
        has asked the API: a balance may be passed over, but none comes twice, and none is wrong.
        """
        truth = [f"{version} {balance}" for version, balance in enumerate(balances, start=1)]
        deadline = time.monotonic() + _IN_TIME_S
        while (lines := self.lines_of(wallet_id))[-1:] != truth[-1:]:
            assert time.monotonic() < deadline, self.output.read_text()[-2_000:]
            time.sleep(0.05)
        assert lines == [one for one in truth if one in lines], lines


@pytest.fixture(params=["python", "javascript"])
def consumer(request: pytest.FixtureRequest, tmp_path: Path, service: RunningService) -> Consumer:
    if request.param == "javascript" and (shutil.which("node") is None or not _PACKAGES.exists()):
        assert not os.environ.get("CI"), "CI runs both consumers"
        pytest.skip("the packages are not installed: `make lint-openapi` installs them (needs npm)")
    return Consumer(request.param, tmp_path, service)


def _reader_url(service: RunningService) -> str:
    if service.state_dir is None:
        pytest.skip("the reader of this service's NATS server is unknown")
    return service.wallet("events", "credentials").strip()


def test_a_consumer_follows_a_wallet_and_goes_on_where_it_was(
    consumer: Consumer, api: Api, service: RunningService
) -> None:
    url = _reader_url(service)
    wallet_id = api.new_wallet()
    with consumer.running(url):
        api.debit(wallet_id, {"amount": "10.50", "status": "completed"})
        consumer.wait_for(wallet_id, ["0.00", "10.50"])
    api.credit(wallet_id, {"amount": "0.50", "status": "completed"})
    with consumer.running(url):
        api.debit(wallet_id, {"amount": "5.00", "status": "completed"})
        consumer.wait_for(wallet_id, ["0.00", "10.50", "10.00", "15.00"])


def test_a_consumer_with_a_wrong_password_says_so_and_ends(
    consumer: Consumer, service: RunningService
) -> None:
    wrong = re.sub(r"://.*@", "://reader:wrong@", _reader_url(service))
    process = consumer.start(wrong)
    try:
        assert process.wait(timeout=_IN_TIME_S) == 1
    finally:
        process.kill()
        process.wait()
    assert "No connection to NATS: " in consumer.output.read_text()
    assert "uthorization" in consumer.output.read_text()
