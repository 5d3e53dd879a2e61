"""What KubeRay's CRD requires of the fields of a RayService that this project uses.

Written down here, because the CRD is in no package for Python. Pod templates and Services are
Kubernetes' own and are checked with its schemas (`tests/unit/test_kubernetes_manifests.py`). The
test there that reads the CRD itself compares it with this one.
"""

from typing import Any, Final

Schema = dict[str, Any]

STRING: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
BOOLEAN: Final[Schema] = {"type": "boolean"}
OF_KUBERNETES: Final[Schema] = {"type": "object"}
"""An object that has a schema of Kubernetes' own."""


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def an_object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object with these fields and no others: the API server drops what it does not know."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


# `ray start` options: the API server refuses numbers and booleans here.
_START_PARAMETERS: Final[Schema] = {"type": "object", "additionalProperties": STRING}

_SECRET_KEY: Final = an_object(
    valueFrom=an_object(secretKeyRef=an_object(("key",), name=STRING, key=STRING)),
)

_CLUSTER: Final = an_object(
    ("headGroupSpec",),
    rayVersion=STRING,
    enableInTreeAutoscaling=BOOLEAN,
    autoscalerOptions=an_object(
        version=one_of("v1", "v2"),
        idleTimeoutSeconds=INTEGER,
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        resources=OF_KUBERNETES,
        securityContext=OF_KUBERNETES,
    ),
    authOptions=an_object(mode=one_of("disabled", "token"), secretName=STRING),
    gcsFaultToleranceOptions=an_object(
        ("redisAddress",), redisAddress=STRING, redisPassword=_SECRET_KEY
    ),
    headGroupSpec=an_object(
        ("template",), rayStartParams=_START_PARAMETERS, template=OF_KUBERNETES
    ),
    workerGroupSpecs={
        "type": "array",
        "items": an_object(
            ("groupName", "minReplicas", "maxReplicas", "template"),
            groupName=STRING,
            replicas=INTEGER,
            minReplicas=INTEGER,
            maxReplicas=INTEGER,
            rayStartParams=_START_PARAMETERS,
            template=OF_KUBERNETES,
        ),
    },
)

RAY_SERVICE: Final = an_object(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion=one_of("ray.io/v1"),
    kind=one_of("RayService"),
    metadata=OF_KUBERNETES,
    spec=an_object(
        ("rayClusterConfig",),
        # The operator refuses other types than these.
        upgradeStrategy=an_object(
            type=one_of("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
        ),
        rayClusterDeletionDelaySeconds=INTEGER,
        excludeHeadPodFromServeSvc=BOOLEAN,
        serveService=OF_KUBERNETES,
        serveConfigV2=STRING,
        rayClusterConfig=_CLUSTER,
    ),
)


def strict(schema: Any) -> Any:
    """A CRD's schema as a JSON schema that refuses unknown fields, which the API server drops."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: strict(one) for name, one in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        changed |= {"anyOf": [{"type": "integer"}, {"type": "string"}]}
        changed.pop("pattern", None)  # of the string only
    if (
        isinstance(schema.get("properties"), dict)
        and "x-kubernetes-preserve-unknown-fields" not in schema
    ):
        changed.setdefault("additionalProperties", False)
    return changed


def differences(ours: Schema, theirs: Schema, path: str = "") -> list[str]:
    """Where ``ours`` allows what ``theirs``, the CRD's schema, does not."""
    found = [] if ours["type"] == theirs.get("type") else [f"{path}: type {theirs.get('type')}"]
    if "enum" in theirs and not set(ours.get("enum", ["anything"])) <= set(theirs["enum"]):
        found.append(f"{path}: one of {theirs['enum']}")
    if ours is OF_KUBERNETES:
        return found
    if missing := set(theirs.get("required", ())) - set(ours.get("required", ())):
        found.append(f"{path}: {sorted(missing)} required")
    for name, one in ours.get("properties", {}).items():
        known = theirs.get("properties", {}).get(name)
        found += differences(one, known, f"{path}.{name}") if known else [f"{path}.{name}: unknown"]
    if "items" in ours:
        found += differences(ours["items"], theirs["items"], f"{path}[]")
    return found
