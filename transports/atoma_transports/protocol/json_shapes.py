"""What messages look like as JSON, in words of JSON Schema (2020-12): the parts that have a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

JsonShape: TypeAlias = dict[str, object]
Refer: TypeAlias = Callable[[type[msgspec.Struct]], JsonShape]
"""Gives what a schema says in the place of another struct, which has a schema of its own."""
Describe: TypeAlias = Callable[[Refer], JsonShape]


def reference(name: str) -> JsonShape:
    """What a schema says in the place of one that has a name."""
    return {"$ref": f"#/components/schemas/{name}"}


def always(shape: JsonShape) -> Describe:
    """The description of a part that holds no struct."""
    return lambda refer: shape


_BYTES: JsonShape = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_-]*$",
    "description": "Bytes as base64url without padding.",
}
PARTS: Mapping[str, JsonShape] = {
    "Int64": {
        "description": "A whole number of 64 bits: written as text, read as text or number.",
        "anyOf": [{"type": "string", "pattern": "^(0|-?[1-9][0-9]{0,18})$"}, {"type": "integer"}],
    },
    "Bytes": _BYTES,
    "Value": {
        "description": "A value of a column; integers beyond 2^53, bytes, and reals that are not finite say what they are.",
        "anyOf": [
            {"type": ["string", "number", "boolean", "null"]},
            *(
                {"type": "object", "required": [tag], "properties": {tag: of}, "additionalProperties": False}
                for tag, of in (
                    ("$i", {"type": "string", "pattern": "^-?[1-9][0-9]{0,18}$"}),
                    ("$x", _BYTES),
                    ("$f", {"enum": ["NaN", "Infinity", "-Infinity"]}),
                )
            ),
        ],
    },
    "Cell": {"anyOf": [reference("Value"), {"type": "array", "items": reference("Cell")}]},
    "Query": {
        "type": "object",
        "required": ["plan"],
        "properties": {"plan": {"type": "object", "description": "The query; see the reference of plans."}, "params": {"type": "array"}},
    },
}  # fmt: skip
"""The schemas of what is no struct, by name."""
