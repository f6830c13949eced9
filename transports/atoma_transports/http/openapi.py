"""The protocol over HTTP as an OpenAPI 3.1 description, made of the table of methods and of the types of their messages.

What a type looks like in JSON is said in JSON Schema (2020-12) where it is written: :mod:`atoma_transports.protocol.json_mapping`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import msgspec

from atoma.codes import CODES
from atoma.contracts.values import ErrorInfo
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec
from atoma_transports.adapters import METHODS
from atoma_transports.adapters.methods import NOTIFY
from atoma_transports.calls.methods import Method
from atoma_transports.http.documents.asking import TEMPLATE
from atoma_transports.http.documents.messages import Documents, PullDocuments, PushDocuments, PushedDocuments
from atoma_transports.http.envelope import (
    BATCH,
    BUDGET,
    CANCEL,
    EVENTS,
    JSON,
    PREFIX,
    TRACE,
    BatchCall,
    CallReply,
    Cancel,
    Done,
    Failure,
)
from atoma_transports.protocol.json_mapping import shape_of
from atoma_transports.protocol.json_shapes import PARTS, JsonShape, reference

DESCRIPTION = "openapi.json"
STORES = "schema"
VERSION = "1"
SUMMARIES: Mapping[str, str] = {
    "open": "Begin a session of sync: who the hub is, and how far scopes are",
    "push": "Send mutations of a device, in the order of their numbers",
    "pull": "The log of a scope after a cursor, a page at a time",
    "snapshot": "All rows of a scope, a page at a time",
    "notify": "Be told of new heads of scopes, until you hang up",
    "presence": "Be in a scope with a state, and be told who else is, until you hang up",
    "appear": "Say something else in a scope, or leave it",
    "query": "Answer a query from the rows that you may see",
    "write": "Write rows at once; done once for each key",
    "resolve": "What became of a write, whose answer was lost",
}


def description() -> JsonShape:
    """The whole description; see https://spec.openapis.org/oas/v3.1.0."""
    shapes = _Shapes()
    paths: dict[str, object] = {f"{PREFIX}{method.name}": _path(method, shapes) for method in METHODS.values()}
    call = shapes.of_struct(BatchCall, message={"type": "object", "description": "The request of the method."})
    reply = shapes.of_struct(CallReply, ok={"type": "object", "description": "The reply of the method."})
    batch: JsonShape = {
        "type": "object",
        "required": ["version", "id", "calls"],
        "properties": {"version": {"const": 1}, "id": {"type": "string"}, "calls": {"type": "array", "items": call}},
    }
    replies: JsonShape = {"type": "object", "properties": {"replies": {"type": "array", "items": reply}}}
    paths[f"{PREFIX}{BATCH}"] = _post("Several calls in one request", batch, {JSON: {"schema": replies}}, shapes)
    done = {JSON: {"schema": shapes.of_struct(Done)}}
    paths[f"{PREFIX}{CANCEL}"] = _post("End calls of a running batch of yours", shapes.of_struct(Cancel), done, shapes)
    paths |= _paths_of_documents(shapes)
    paths[f"{PREFIX}{STORES}"] = _get("The stores and their fields", {JSON: {"schema": {"type": "object"}}}, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Atoma hub", "version": VERSION, "description": "Integers are texts, so that JavaScript keeps them exact."},
        "paths": paths,
        "components": {
            "schemas": {**shapes.named, **PARTS},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }  # fmt: skip


@cache
def description_text() -> bytes:
    """:func:`description` as JSON text."""
    return msgspec.json.encode(description())


def stores_text(schema: Schema) -> bytes:
    """The stores of a hub as JSON text: what its rows hold."""
    stores = {name: _store(store) for name, store in schema.stores.items()}
    return msgspec.json.encode({"version": schema.version, "stores": stores})


def _store(store: StoreSpec[object]) -> JsonShape:
    scope = {"field": store.scope_field} if store.scope_field else {"fixed": store.fixed_scope}
    fields = {
        name: {"type": of.type_name, "stored": of.sql_type, "form": of.form, "nullable": of.nullable, "boolean": of.boolean}
        for name, of in store.fields.items()
    }  # fmt: skip
    return {"scope": scope, "replicates": store.replicate, "fields": fields}


class _Shapes:
    """The schemas of messages, each under the name of its type.

    Attributes:
        named: The schemas so far.
    """

    def __init__(self) -> None:
        self.named: JsonShape = {}

    def of_struct(self, kind: type[msgspec.Struct], **instead: JsonShape) -> JsonShape:
        """A reference to the schema of ``kind``, in which some fields are what ``instead`` says."""
        name = kind.__name__
        if name not in self.named:
            self.named[name] = {}  # for one that holds itself
            self.named[name] = shape_of(kind, self.of_struct, **instead)
        return reference(name)


def _path(method: Method, shapes: _Shapes) -> JsonShape:
    request, reply = shapes.of_struct(method.request), shapes.of_struct(method.reply)
    summary = SUMMARIES[method.name]
    if not method.streams:
        return _post(summary, request, {JSON: {"schema": reply}}, shapes)
    item = method.reply.__name__
    says = f"Events: {item.lower()}, whose data is a {item}; then end or error."
    events = {EVENTS: {"schema": {"type": "string", "description": says}}}
    if method is not NOTIFY:
        return _post(summary, request, events, shapes)
    scopes: JsonShape = {
        "name": "scope",
        "in": "query",
        "required": True,
        "schema": {"type": "array", "items": {"type": "string"}},
    }
    return _post(summary, request, events, shapes) | _get(summary, events, shapes, scopes)


def _paths_of_documents(shapes: _Shapes) -> JsonShape:
    """What clients that replicate documents ask; it is in JSON's own form."""
    kinds = (PullDocuments, Documents, PushDocuments, PushedDocuments)
    (pull, page, push, pushed), named = msgspec.json.schema_components(
        kinds,
        schema_hook=lambda kind: {"description": "A value of the field."},
        ref_template="#/components/schemas/{name}",
    )
    shapes.of_struct(ErrorInfo)
    plain: JsonShape = msgspec.json.decode(msgspec.json.encode(named))  # without tuples, which are no part of JSON
    shapes.named.update({name: shape for name, shape in plain.items() if name not in shapes.named})
    events: JsonShape = {
        "type": "string",
        "description": "Events: documents, whose data is a Documents, and resync: pull from your checkpoint; then end or error.",
    }
    store: JsonShape = {"name": "store", "in": "path", "required": True, "schema": {"type": "string"}}
    scope: JsonShape = {
        "name": "scope",
        "in": "query",
        "description": "The scope, where the rows of the store say theirs in a field",
        "schema": {"type": "string"},
    }
    asked = {
        "pull": _post("The documents of a scope behind a checkpoint", pull, {JSON: {"schema": page}}, shapes),
        "push": _post("Change documents that are as you believe", push, {JSON: {"schema": pushed}}, shapes),
        "stream": _get("Documents as they change, until you hang up", {EVENTS: {"schema": events}}, shapes),
    }
    return {PREFIX + TEMPLATE.format(act): {**path, "parameters": [store, scope]} for act, path in asked.items()}


def _get(summary: str, content: Mapping[str, object], shapes: _Shapes, *parameters: JsonShape) -> JsonShape:
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": _responses(content, shapes)}}


def _post(summary: str, request: JsonShape, content: Mapping[str, object], shapes: _Shapes) -> JsonShape:
    fields = [
        _field(BUDGET, "How many milliseconds you wait for the answer", {"type": "integer", "minimum": 0}),
        _field(TRACE, "Your trace id, for the hub's log", {"type": "string"}),
    ]
    body = {"required": True, "content": {JSON: {"schema": request}}}
    answers = _responses(content, shapes)
    return {"post": {"summary": summary, "parameters": fields, "requestBody": body, "responses": answers}}


def _field(name: str, says: str, schema: JsonShape) -> JsonShape:
    return {"name": name, "in": "header", "description": says, "schema": schema}


def _responses(content: Mapping[str, object], shapes: _Shapes) -> JsonShape:
    failure = {JSON: {"schema": shapes.of_struct(Failure)}}
    codes: dict[int, list[str]] = {}
    for name, code in CODES.items():
        codes.setdefault(code.http, []).append(name)
    refusals = {
        str(status): {"description": ", ".join(sorted(names)), "content": failure}
        for status, names in sorted(codes.items())
        if status >= 400
    }
    return {"200": {"description": "The answer", "content": content}, **refusals}
