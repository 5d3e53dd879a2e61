"""The manifests of deploy/kuberay are what Kubernetes and KubeRay accept.

Against Kubernetes' own schemas, and against what KubeRay's CRD requires (tests/support/kuberay.py).
With the file of the CRD itself, `config/crd/bases/ray.io_rayservices.yaml` of KubeRay's
ray-operator, in WALLET_KUBERAY_CRD, also against that:

    WALLET_KUBERAY_CRD=FILE make test ARGS=tests/unit/test_kubernetes_manifests.py
"""

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes_validate import ValidationError, validate

from tests.support.kuberay import OF_KUBERNETES, RAY_SERVICE, differences, strict

KUBERAY = Path(__file__).parents[2] / "deploy/kuberay"

VERSIONS = ("1.30", "1.37")
"""Of Kubernetes: the oldest that the manifests are for, and the newest with a schema here."""


def documents() -> Iterator[dict[str, Any]]:
    for path in sorted(KUBERAY.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def kubernetes_objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """What Kubernetes has a schema for: its own kinds, and its parts of the RayService."""
    for document in documents():
        if document["kind"] == "RayService":
            yield from parts_of(document)
        else:
            yield f"{document['kind']} {document['metadata']['name']}", document


def parts_of(service: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts of a RayService that are objects of Kubernetes, each as one of its own."""
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        name = group.get("groupName", "head")
        yield f"pod of {name}", _object("v1", "PodTemplate", template=group["template"])
    exposed = service["spec"]["serveService"]
    yield "serveService", _object("v1", "Service", **exposed)
    options = cluster["autoscalerOptions"]
    container = {"name": "autoscaler", "image": "ray"} | {
        name: options[name] for name in ("resources", "securityContext")
    }
    yield "autoscaler", _object("v1", "Pod", spec={"containers": [container]})


def _object(api_version: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, **fields}


@pytest.fixture
def service() -> dict[str, Any]:
    """The RayService; a test may change it."""
    (found,) = (one for one in documents() if one["kind"] == "RayService")
    return copy.deepcopy(found)


OBJECTS = dict(kubernetes_objects())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("found", OBJECTS.values(), ids=OBJECTS.keys())
def test_kubernetes_accepts_the_object(found: dict[str, Any], version: str) -> None:
    assert validate(found, version, strict=True) == version


def test_kuberay_accepts_the_service(service: dict[str, Any]) -> None:
    jsonschema.validate(service, RAY_SERVICE)


def _misspelled(service: dict[str, Any]) -> None:
    service["spec"]["rayClusterConfig"]["autoscalerOptions"]["idleTimeoutSecond"] = 300


def _number_for_ray_start(service: dict[str, Any]) -> None:
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def _without_bounds(service: dict[str, Any]) -> None:
    del service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"]


def _unknown_strategy(service: dict[str, Any]) -> None:
    service["spec"]["upgradeStrategy"]["type"] = "Rolling"


@pytest.mark.parametrize(
    "spoil", [_misspelled, _number_for_ray_start, _without_bounds, _unknown_strategy]
)
def test_a_spoiled_service_is_refused(
    service: dict[str, Any], spoil: Callable[[dict[str, Any]], None]
) -> None:
    spoil(service)

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(service, RAY_SERVICE)


def test_a_misspelled_field_of_a_pod_is_refused(service: dict[str, Any]) -> None:
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    head["spec"]["terminationGracePeriod"] = 60

    with pytest.raises(ValidationError):
        validate(_object("v1", "PodTemplate", template=head), VERSIONS[-1], strict=True)


@pytest.fixture
def crd() -> dict[str, Any]:
    """The CRD's own schema of RayService v1."""
    path = os.environ.get("WALLET_KUBERAY_CRD")
    if path is None:
        pytest.skip("WALLET_KUBERAY_CRD does not name KubeRay's CRD")
    versions = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["spec"]["versions"]
    (found,) = (one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1")
    found["properties"]["metadata"] = OF_KUBERNETES
    return dict(found)


def test_the_crd_itself_accepts_the_service(service: dict[str, Any], crd: dict[str, Any]) -> None:
    jsonschema.validate(service, strict(crd))


def test_the_crd_allows_what_our_schema_allows(crd: dict[str, Any]) -> None:
    assert differences(RAY_SERVICE, crd) == []
