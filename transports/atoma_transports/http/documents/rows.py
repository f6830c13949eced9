"""Rows as documents and back: in the form of files, which people and other programs read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from atoma.contracts.values import RowImage, Scalar, is_gone
from atoma.errors import ValidationError
from atoma.schema.portable import from_json, plain_of, to_json, value_of
from atoma.schema.spec import StoreSpec
from atoma_transports.http.documents.messages import DELETED, Document

NAMES_SHOWN = 80


def gone(id: str) -> Document:
    """The document of a row that is not there."""
    return {"id": id, DELETED: True}


def document_of(spec: StoreSpec[Any], id: str, image: RowImage | None) -> Document:
    """The document of a row; one that was deleted softly is not there."""
    if image is None or is_gone(image):
        return gone(id)
    document: Document = {"id": id}
    for name, field in spec.declared.items():
        if name != "id" and image[name] is not None:
            document[name] = to_json(field, plain_of(field, image[name]))
    document[DELETED] = False
    return document


def is_deleted(document: Document | None) -> bool:
    """Whether there is nothing to see of a document."""
    return document is None or document.get(DELETED) is True


def stated(spec: StoreSpec[Any], document: Document) -> RowImage:
    """What a document says of the columns of its row.

    Raises:
        ValidationError: It has a field that the store has not, or a value that the field cannot have.
    """
    image: RowImage = {}
    for name, value in document.items():
        if name not in spec.declared and name != DELETED:
            known = ", ".join(spec.columns)
            message = f"store {spec.name!r} has no field {name[:NAMES_SHOWN]!r}; it has: {known}"
            raise ValidationError(message, store=spec.name, field=name[:NAMES_SHOWN])
        if name not in ("id", DELETED):
            image[name] = _stored(spec, name, value)
    return image


def _stored(spec: StoreSpec[Any], name: str, value: object) -> Scalar:
    field = spec.fields[name]
    plain = from_json(spec.name, field, msgspec.json.encode(value))
    return field.literal(value_of(spec, name, plain))


def known(spec: StoreSpec[Any], document: Document) -> RowImage:
    """What a document that the client got says, as far as the store knows its fields."""
    return stated(spec, {name: value for name, value in document.items() if name in spec.declared})


def differing(spec: StoreSpec[Any], image: RowImage, says: Mapping[str, Scalar]) -> RowImage:
    """The part of ``says`` in which a row is another one, whoever sets the rest: the state of a text is made of the text."""
    states = spec.merging.states
    return {n: value for n, value in says.items() if n not in states and spec.differ(n, value, image[n])}


def left_out(spec: StoreSpec[Any], says: Mapping[str, Scalar]) -> RowImage:
    """The columns that a document leaves out and that are nothing by that; of others it says nothing."""
    return {name: None for name, field in spec.declared.items() if field.nullable and name not in says and name != "id"}


def is_as_told(spec: StoreSpec[Any], image: RowImage, says: Mapping[str, Scalar]) -> bool:
    """Whether a row is as a document with ``says`` has it."""
    return not differing(spec, image, {**left_out(spec, says), **says})
