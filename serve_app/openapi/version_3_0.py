"""The OpenAPI document in version 3.0.3, for generators that can't read 3.1.

It says the same: 3.1 has JSON Schema's null, const, examples and keywords beside a reference, which
3.0 writes in another way. Rules for the names of members exist in 3.1 only; they are left out.
"""

from collections.abc import Iterator
from typing import Any, Final

Json = Any

VERSION: Final = "3.0.3"

_ROOT: Final = "#/components/schemas/"

_NULL: Final = {"type": "null"}

_VALUES: Final = frozenset({"example", "examples", "value", "default", "enum", "const"})
"""Members whose content is data, not part of the document."""


def rendered(document: dict[str, Json]) -> dict[str, Json]:
    """``document``, of version 3.1, in version 3.0.3. ``document`` is not changed."""
    components: dict[str, Json] = document.get("components", {})
    schemas = _Schemas(components.get("schemas", {}))
    return {
        **_part({key: part for key, part in document.items() if key != "components"}, schemas),
        "openapi": VERSION,
        "components": {**components, "schemas": schemas.rendered()},
    }


def _part(part: Json, schemas: "_Schemas") -> Json:
    """A part of the document outside of schemas."""
    if isinstance(part, list):
        return [_part(one, schemas) for one in part]
    if not isinstance(part, dict):
        return part
    return {key: _member(key, value, schemas) for key, value in part.items()}


def _member(key: str, value: Json, schemas: "_Schemas") -> Json:
    if key == "schema":
        return schemas.render(value)
    if key == "security":  # In 3.0 only OAuth and OpenID have scopes; descriptions name them.
        return [{scheme: [] for scheme in one} for one in value]
    return value if key in _VALUES else _part(value, schemas)


class _Schemas:
    """Renders schemas. ``components`` are those that they refer to."""

    def __init__(self, components: dict[str, Json]) -> None:
        self._components = components
        optional = list(_optional_references(components))
        # Null must be among the values of an enumeration. Where it always is, the component has it;
        # where it sometimes is, there is a second component.
        self._nullable = {
            name: name if optional.count(name) == _uses(components, name) else f"Nullable{name}"
            for name in sorted(set(optional))
            if "enum" in components[name]
        }
        """Components with null among their values, by the component without."""

    def rendered(self) -> dict[str, Json]:
        """All components."""
        schemas = {name: self.render(one) for name, one in self._components.items()}
        with_null = {
            nullable: _with_null(nullable, schemas[name])
            for name, nullable in self._nullable.items()
        }
        return schemas | with_null

    def render(self, schema: Json) -> Json:
        """One schema, and those in it."""
        made = dict(schema)
        made.pop("propertyNames", None)
        if "const" in made:
            made["enum"] = [made.pop("const")]
        if "examples" in made:
            made["example"] = made.pop("examples")[0]
        for key in ("items", "additionalProperties"):
            if isinstance(made.get(key), dict):
                made[key] = self.render(made[key])
        if "properties" in made:
            fields = made["properties"].items()
            made["properties"] = {name: self.render(one) for name, one in fields}
        if "anyOf" in made:
            made = self._any_of(made)
        if "$ref" in made and len(made) > 1:  # 3.0 ignores what stands beside a reference.
            made = {"allOf": [{"$ref": made.pop("$ref")}], **made}
        return made

    def _any_of(self, schema: Json) -> Json:
        """A schema with options: null is a mark on the others, a single option needs no list."""
        own = {key: value for key, value in schema.items() if key != "anyOf"}
        options = [self.render(one) for one in schema["anyOf"] if one != _NULL]
        if len(options) > 1:
            return {**own, "anyOf": options}
        (option,) = options
        name = _name(option)
        if name in self._nullable:
            return {"$ref": _ROOT + self._nullable[name], **own}
        typed = {"type": self._components[name]["type"]} if name is not None else {}
        return {**option, **own, **typed, "nullable": True}


def _name(schema: Json) -> str | None:
    """The component that ``schema`` refers to."""
    reference: str = schema.get("$ref", "")
    return reference.removeprefix(_ROOT) or None


def _optional_references(part: Json) -> Iterator[str]:
    """The components that something refers to with null as the other option."""
    for one in _objects(part):
        options = one.get("anyOf", ())
        if _NULL in options:
            yield from (name for option in options if (name := _name(option)) is not None)


def _uses(part: Json, name: str) -> int:
    return sum(one.get("$ref") == _ROOT + name for one in _objects(part))


def _objects(part: Json) -> Iterator[dict[str, Json]]:
    """Every object in ``part``, itself too."""
    if isinstance(part, dict):
        yield part
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for one in inner:
        yield from _objects(one)


def _with_null(name: str, enumeration: Json) -> Json:
    """An enumeration with null. Generators need a name for it."""
    values = enumeration["enum"]
    names = [*("".join(map(str.title, value.split("_"))) for value in values), f"{name}Null"]
    null = {"enum": [*values, None], "nullable": True, "x-enum-varnames": names}
    return enumeration | {"title": name} | null
