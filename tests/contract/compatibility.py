"""Finds breaking changes against the released documents. Within v1, changes only add."""

from collections.abc import Collection, Iterator
from typing import Any, Final

Json = Any

_DEPTH_MAX: Final = 40
_NULL: Final = "null"


def api_breaks(released: Json, today: Json) -> list[str]:
    """The breaking changes of the OpenAPI document against the released one."""
    return list(_paths(released, today))


def _paths(released: Json, today: Json) -> Iterator[str]:
    for path, methods in released["paths"].items():
        for method, before in methods.items():
            after = today["paths"].get(path, {}).get(method)
            where = f"{method.upper()} {path}"
            if after is None:
                yield f"{where}: removed"
                continue
            if before.get("operationId") != after.get("operationId"):
                yield f"{where}: operationId is not {before['operationId']} any more"
            yield from _parameters(where, before, after)
            yield from _body(where, before, after, released, today)
            yield from _answers(where, before, after, released, today)


def _parameters(where: str, before: Json, after: Json) -> Iterator[str]:
    known = {(one["in"], one["name"]): one for one in before.get("parameters", [])}
    offered = {(one["in"], one["name"]): one for one in after.get("parameters", [])}
    for place, name in known.keys() - offered.keys():
        yield f"{where}: {place} parameter {name} removed"
    for key, parameter in offered.items():
        was_required = known.get(key, {}).get("required", False)
        if parameter.get("required") and not was_required:
            yield f"{where}: {key[0]} parameter {key[1]} is required now"
    for key in known.keys() & offered.keys():
        yield from _lost_values(f"{where} {key[1]}", known[key]["schema"], offered[key]["schema"])


def _body(where: str, before: Json, after: Json, released: Json, today: Json) -> Iterator[str]:
    old, new = before.get("requestBody"), after.get("requestBody")
    if new is not None and new.get("required") and not (old or {}).get("required"):
        yield f"{where}: a body is required now"
    for media, content in (old or {}).get("content", {}).items():
        offered = (new or {}).get("content", {}).get(media)
        if offered is None:
            yield f"{where}: no {media} body any more"
            continue
        place = f"{where} body"
        yield from request_breaks(place, content["schema"], offered["schema"], released, today)


def _answers(where: str, before: Json, after: Json, released: Json, today: Json) -> Iterator[str]:
    for status, answer in before["responses"].items():
        offered = after["responses"].get(status)
        place = f"{where} {status}"
        if offered is None:
            yield f"{place}: removed"
            continue
        for header in answer.get("headers", {}).keys() - offered.get("headers", {}).keys():
            yield f"{place}: header {header} removed"
        for media, content in answer.get("content", {}).items():
            shown = offered.get("content", {}).get(media)
            if shown is None:
                yield f"{place}: no {media} any more"
                continue
            for code in content.get("examples", {}).keys() - shown.get("examples", {}).keys():
                yield f"{place}: problem {code} removed"
            yield from answer_breaks(place, content["schema"], shown["schema"], released, today)


def answer_breaks(
    where: str, before: Json, after: Json, released: Json, today: Json, depth: int = 0
) -> Iterator[str]:
    """Breaking changes for readers of responses or events: fields, values, types, promises."""
    assert depth < _DEPTH_MAX, f"{where}: schemas nest too deep"
    before, after = _resolved(before, released), _resolved(after, today)
    yield from _lost_values(where, before, after)
    yield from _lost_types(where, before, after, unless={_NULL})  # Readers expect less, not more.
    if _NULL in _types(after) - _types(before) and _types(before):
        yield f"{where}: may be null now"
    for name in set(before.get("required", [])) - set(after.get("required", [])):
        yield f"{where}/{name}: may be missing now"
    for name, field in before.get("properties", {}).items():
        if name not in after.get("properties", {}):
            yield f"{where}/{name}: removed"
            continue
        inner = after["properties"][name]
        yield from answer_breaks(f"{where}/{name}", field, inner, released, today, depth + 1)
    for inner_before, inner_after in _inner(before, after):
        yield from answer_breaks(
            f"{where}[]", inner_before, inner_after, released, today, depth + 1
        )


def request_breaks(
    where: str, before: Json, after: Json, released: Json, today: Json, depth: int = 0
) -> Iterator[str]:
    """Breaking changes for senders of requests: removed fields or values, new required fields."""
    assert depth < _DEPTH_MAX, f"{where}: schemas nest too deep"
    before, after = _resolved(before, released), _resolved(after, today)
    yield from _lost_values(where, before, after)
    yield from _lost_types(where, before, after)
    for name in set(after.get("required", [])) - set(before.get("required", [])):
        yield f"{where}/{name}: is required now"
    for name, field in before.get("properties", {}).items():
        if name not in after.get("properties", {}):
            yield f"{where}/{name}: not taken any more"
            continue
        inner = after["properties"][name]
        yield from request_breaks(f"{where}/{name}", field, inner, released, today, depth + 1)
    for inner_before, inner_after in _inner(before, after):
        yield from request_breaks(
            f"{where}[]", inner_before, inner_after, released, today, depth + 1
        )


def _inner(before: Json, after: Json) -> Iterator[tuple[Json, Json]]:
    """The items of a list, and the forms of something with several."""
    if "items" in before:
        yield before["items"], after.get("items", {})
    if len(before.get("anyOf", [])) == len(after.get("anyOf", [])):
        yield from zip(before.get("anyOf", []), after.get("anyOf", []), strict=True)


def _resolved(schema: Json, document: Json) -> Json:
    """What a reference refers to. One option beside null is that option, and may be null."""
    if "$ref" in schema:
        found = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return _resolved(found, document)
    options = [option for option in schema.get("anyOf", []) if option != {"type": _NULL}]
    if len(options) != 1:
        return schema
    resolved = _resolved(options[0], document)
    may_be_null = len(options) < len(schema["anyOf"])
    return resolved | {"type": [resolved.get("type"), *([_NULL] if may_be_null else [])]}


def _lost_values(where: str, before: Json, after: Json) -> Iterator[str]:
    if "const" in before and before["const"] not in _values(after):
        yield f"{where}: is not {before['const']!r} any more"
    for value in before.get("enum", []):
        if ("enum" in after or "const" in after) and value not in _values(after):
            yield f"{where}: value {value!r} removed"


def _values(schema: Json) -> list[Json]:
    return [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]


def _lost_types(
    where: str, before: Json, after: Json, unless: Collection[str] = ()
) -> Iterator[str]:
    for kind in _types(before) - _types(after) - set(unless):
        if _types(after):
            yield f"{where}: is no {kind} any more"


def _types(schema: Json) -> set[str]:
    options = [schema, *schema.get("anyOf", [])]
    types = [option.get("type") for option in options]
    flat = [kind for one in types for kind in (one if isinstance(one, list) else [one])]
    return {kind for kind in flat if kind is not None}
