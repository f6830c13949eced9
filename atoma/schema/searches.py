"""Searches of a store: what the text of one says of which field, as conditions and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from atoma.contracts.query import AS_WRITTEN, Call, Col, Lit
from atoma.schema.expressions import Condition, Expression
from atoma.schema.field_terms import Piece, by_field


def matching(store: str, fields: Sequence[str], text: str) -> Condition:
    """That ``fields`` together have what the search ``text`` asks for."""
    groups = by_field(text, fields) or [[Piece(None, text)]]
    asked = [[_condition(store, fields, each) for each in group] for group in groups]
    return reduce(lambda one, other: one & other, [reduce(lambda one, other: one | other, group) for group in asked])


def ranking(store: str, fields: Sequence[str], text: str) -> Expression[float]:
    """How well ``fields`` fit what the search ``text`` wants."""
    wanted: dict[str | None, list[str]] = {}
    for group in by_field(text, fields) or ():
        for each in group:
            if each.wanted:
                wanted.setdefault(each.field, []).append(each.text)
    pieces = [Piece(field, " ".join(texts)) for field, texts in wanted.items()] or [Piece(None, text)]
    return reduce(lambda one, other: one + other, [_call("rank", store, fields, each) for each in pieces])


def _condition(store: str, fields: Sequence[str], piece: Piece) -> Condition:
    found: Condition = _call("matches", store, fields, piece)
    return found if piece.wanted else ~found


def _call(fn: str, store: str, fields: Sequence[str], piece: Piece) -> Expression[Any]:
    columns = [Col(0, name) for name in (fields if piece.field is None else (piece.field,))]
    return Expression(Call(fn, (Lit(AS_WRITTEN, piece.text), *columns)), store)
