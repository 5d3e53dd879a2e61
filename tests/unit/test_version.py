"""One version, in one place."""

import re
from pathlib import Path

import pytest

from runtime.version import VERSION
from serve_app.app import create_app

ROOT = Path(__file__).parents[2]


def test_the_api_document_has_the_version_of_the_service() -> None:
    assert create_app().openapi()["info"]["version"] == VERSION


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("specification/asyncapi.yaml", r"^  version: (\S+)$"),
        ("deploy/kuberay/rayservice.yaml", r"wallet-service:(\S+)"),
        ("deploy/kuberay/migrate.yaml", r"wallet-service:(\S+)"),
    ],
)
def test_documents_and_manifests_have_the_version_of_the_service(path: str, pattern: str) -> None:
    found = re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE)
    assert set(found) == {VERSION}
