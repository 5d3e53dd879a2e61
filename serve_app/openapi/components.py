"""OpenAPI components: the schemas of all request and response models.

Single requests are pydantic models, everything else is msgspec structs. The schemas of both have
the same form, share `serve_app.openapi.shared_components`, and have names that are stable for
clients.
"""

import inspect
from collections.abc import Iterable
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from projections.transfer_list import TransferPageView
from serve_app.http import batch_requests
from serve_app.http.batch_requests import BatchItem, ItemForm, WalletBatchItem
from serve_app.http.models import (
    CompleteTransferBody,
    ControlBody,
    CreateTransferBody,
    CreateWalletBody,
    FreezeBody,
    RefundTransferBody,
    SettleTransferBody,
    UpdateWalletBody,
)
from serve_app.http.problems import FieldError, ProblemDocument
from serve_app.openapi.shared_components import SHARED, UUID, share
from wallet.event_codec import CloudEvent
from wallet.journal_views import JournalEventView, JournalPageView
from wallet.representation import (
    BalancesView,
    RefundedView,
    TransferResultView,
    TransferView,
    WalletChangedView,
    WalletView,
)
from wallet.statement import StatementView

Json = dict[str, Any]
Model = type[BaseModel] | type[msgspec.Struct]

_ROOT: Final = "#/components/schemas/"

COMPONENT_NAMES: Final[dict[Model, str]] = {
    BalancesView: "Balances",
    CloudEvent: "Event",
    FieldError: "ProblemError",
    JournalEventView: "JournalEvent",
    JournalPageView: "JournalPage",
    ProblemDocument: "Problem",
    StatementView: "Statement",
    TransferPageView: "TransferPage",
    TransferView: "Transfer",
    WalletBatchItem: "MultiBatchItem",
    WalletView: "Wallet",
    CreateTransferBody: "CreateTransfer",
    ControlBody: "ControlWallet",
    CreateWalletBody: "CreateWallet",
    FreezeBody: "FreezeWallet",
    CompleteTransferBody: "SettleTransfer",
    SettleTransferBody: "RevertTransfer",
    RefundTransferBody: "RefundTransfer",
    RefundedView: "RefundedTransfer",
    TransferResultView: "WrittenTransfer",
    UpdateWalletBody: "UpdateWallet",
    WalletChangedView: "ChangedWallet",
    batch_requests.MultiWalletBatchBody: "MultiBatch",
    batch_requests.WalletBatchBody: "WalletBatch",
}
"""Component names that differ from the class. Generated clients depend on them: `SettleTransfer`,
once the body of both settlements, stays that of the more frequent one."""

_OWN_FIELDS: Final[dict[str, dict[str, Json]]] = {
    CloudEvent.__name__: {
        "specversion": {"type": "string", "description": "Version of CloudEvents: 1.0."},
        "source": {"type": "string", "description": "This service."},
        "datacontenttype": {"type": "string", "description": "Media type of `data`."},
        "id": {"type": "string", "description": "Unique. The same event always has the same id."},
        "subject": UUID | {"description": "Id of the wallet."},
        "time": {"type": "string", "format": "date-time"},
        "data": {
            "type": "object",
            "description": "What the client's response contained: the transfer with the wallet "
            "after it, or the wallet. `type` says which; each type has a schema in "
            "specification/events.",
        },
    }
}
"""Schemas of fields, by class, that are not what their name is elsewhere in this API."""

_FORMS: Final[dict[type[BatchItem], tuple[ItemForm, ...]]] = {
    BatchItem: batch_requests.ITEM_FORMS,
    WalletBatchItem: batch_requests.WALLET_ITEM_FORMS,
}
"""Structs with several components, and one for all of them."""

_REFERENCES: Final[dict[str, Json]] = {
    _ROOT + model.__name__: {"$ref": _ROOT + name} for model, name in COMPONENT_NAMES.items()
}
"""References by class name, and their replacement."""


def reference(model: Model) -> Json:
    """The reference to a model's component."""
    return {"$ref": _ROOT + COMPONENT_NAMES.get(model, model.__name__)}


def component_schemas(models: Iterable[Model]) -> dict[str, Json]:
    """Schemas of ``models`` and of the models they contain, by component name."""
    found = _schemas_by_class_name(set(models))
    for model, forms in _FORMS.items():
        item = found.get(model.__name__)
        if item is not None:
            found |= {form.component: _form_schema(form, model, item) for form in forms}
            found[model.__name__] = _any_form(model, forms)
    names = {model.__name__: name for model, name in COMPONENT_NAMES.items()}
    published = {
        names.get(name, name): share(_published(one), own=_OWN_FIELDS.get(name))
        for name, one in found.items()
    }
    published |= {name: _published(schema) for name, schema in SHARED.items()}
    return {name: schema | {"title": name} for name, schema in sorted(published.items())}


def _schemas_by_class_name(models: set[Model]) -> dict[str, Json]:
    pydantic_models = [model for model in models if issubclass(model, BaseModel)]
    _, definitions = models_json_schema(
        [(model, "validation") for model in pydantic_models], ref_template=_ROOT + "{model}"
    )
    structs = models.difference(pydantic_models)
    _, components = msgspec.json.schema_components(structs, ref_template=_ROOT + "{name}")
    found: dict[str, Json] = {**definitions["$defs"], **components}
    assert len(found) == len(definitions["$defs"]) + len(components), "two models have one name"
    return found


def _any_form(model: type[BatchItem], forms: tuple[ItemForm, ...]) -> Json:
    return {
        "description": inspect.cleandoc(model.__doc__ or "").partition("\n")[0],
        "anyOf": [{"$ref": _ROOT + form.component} for form in forms],
    }


def _form_schema(form: ItemForm, model: type[BatchItem], item: Json) -> Json:
    """``item``, the schema of ``model``, with the fields of one form."""
    hints = get_type_hints(model, include_extras=True)
    return item | {
        "description": form.description,
        "properties": {
            name: _in_declared_order(item["properties"][name], hints[name])
            | ({"default": form.status_default} if name == "status" else {})
            for name in form.fields
        },
        "required": list(form.required),
    }


def _in_declared_order(schema: Json, hint: object) -> Json:
    """msgspec sorts the values of a Literal."""
    values = _literal_values(hint)
    return schema | {"enum": values} if values else schema


def _literal_values(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [value for part in get_args(hint) for value in _literal_values(part)]


def _published(schema: Json) -> Json:
    """Convert ``schema`` recursively to pydantic's form."""
    if "$ref" in schema:
        return _REFERENCES.get(schema["$ref"], schema)
    made = {key: _published_part(key, part) for key, part in schema.items()}
    if "pattern" in made:  # \A and \Z are Python's; JSON Schema has ECMAScript's patterns.
        made["pattern"] = made["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
    if "enum" in made or "const" in made:
        made.setdefault("type", "string")
    for key, empty in (("required", []), ("default", {})):
        if made.get(key) == empty:
            del made[key]
    return dict(sorted(made.items()))


def _published_part(key: str, part: Any) -> Any:
    match key, part:
        case "properties", dict():
            return {name: _untitled(_published(one)) for name, one in part.items()}
        case "anyOf", list():
            return [_published(one) for one in part]
        case (("items" | "additionalProperties" | "propertyNames"), dict()):
            return _published(part)
    return part


def _untitled(field: Json) -> Json:
    """Generators would name a type after the title of a field; the field has a name already."""
    return {key: value for key, value in field.items() if key != "title"}
