"""The description of the protocol: it is OpenAPI, and it says of messages what the server takes and gives."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from atoma_transports.adapters import METHODS
from atoma_transports.http.envelope import BATCH, CANCEL, Cancel, Done, Failure
from atoma_transports.http.openapi import description, description_text, stores_text
from atoma_transports.protocol.json_mapping import encode_json
from tests.unit.hub.kit import SCHEMA
from tests.unit.transports.any_value import strategy

MESSAGES = sorted(
    {kind for method in METHODS.values() for kind in (method.request, method.reply)} | {Failure, Done, Cancel},
    key=lambda kind: kind.__name__,
)
DESCRIBED: Any = description()
DOCUMENTS = [f"docs/{{store}}/{act}" for act in ("pull", "push", "stream")]


@cache
def validator(name: str) -> Any:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DESCRIBED["components"]}
    return OAS31Validator(schema)


def test_it_is_openapi_3_1_and_has_every_method() -> None:
    validate(DESCRIBED)
    assert json.loads(description_text()) == DESCRIBED
    assert set(DESCRIBED["paths"]) == {f"/v1/{name}" for name in (*METHODS, *DOCUMENTS, BATCH, CANCEL, "schema")}
    assert {"200", "401", "403", "413"} <= DESCRIBED["paths"]["/v1/query"]["post"]["responses"].keys()


@pytest.mark.parametrize("kind", MESSAGES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_message_is_what_it_says(kind: Any, data: st.DataObject) -> None:
    message: Any = data.draw(strategy(inspect.type_info(kind)))
    assert validator(kind.__name__).is_valid(json.loads(encode_json(message)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Hint", {"scope": "main", "head": 1.5}),
        ("Hint", {"scope": "main", "head": "01"}),
        ("Hint", {"scope": "main"}),
        ("Cancel", {"batch": "b", "calls": "1"}),
        ("PullDocuments", {"checkpoint": "AAAA"}),
        ("PullDocuments", {"limit": "1"}),
        ("PullDocuments", {"limits": 1}),
        ("PushDocuments", {"rows": [{"assumedMasterState": None}]}),
        ("PushDocuments", {"rows": [{"newDocumentState": {"title": "x"}}]}),
        ("QueryCall", {"ops": [{"index": 0, "name": "ask"}]}),
        ("QueryCall", {"ops": [], "more": 1}),
        ("WriteCall", {"ops": [{"index": 0, "values": {"a": {"$y": "1"}}}], "idem": "k", "options": {}}),
    ],
)
def test_what_the_server_refuses_it_does_not_allow(name: str, message: object) -> None:
    assert not validator(name).is_valid(message)


def test_the_stores_are_told_with_their_fields() -> None:
    told = json.loads(stores_text(SCHEMA))
    assert told["version"] == SCHEMA.version
    cards = told["stores"]["cards"]
    assert cards["scope"] == {"field": "board"}
    assert list(cards["fields"]) == ["id", "title", "lane", "rank", "done", "board"]
    assert cards["fields"]["done"] == {
        "type": "bool", "stored": "INTEGER", "form": cards["fields"]["done"]["form"], "nullable": False, "boolean": True,
    }  # fmt: skip
