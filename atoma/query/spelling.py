"""One spelling of a query: what may be written in several ways is written in one, so that equal questions are equal values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import msgspec

from atoma.contracts.query import Call, Expr, Lit

MIRRORED: Mapping[str, str] = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
"""What a comparison is called when its sides are changed."""

_encode = msgspec.msgpack.Encoder().encode
_SETS = frozenset({"and", "or"})
_SURROGATES, _BEYOND_SURROGATES = 0xD800, 0xE000


def value_last(call: Call) -> Call:
    """``call``, a comparison of two, with the value on the right."""
    left, right = call.args
    if isinstance(left, Lit) and not isinstance(right, Lit):
        return Call(MIRRORED[call.fn], (right, left))
    return call


def begins_with(call: Call) -> Expr:
    """``call``, whether a column begins with a text, as the range of these texts, in which an index can look."""
    column, prefix = call.args
    assert isinstance(prefix, Lit)
    if prefix.value is None:
        return call
    first = Call("ge", (column, prefix))
    behind = _behind(str(prefix.value))
    return first if not behind else in_order("and", (first, Call("lt", (column, Lit(prefix.type, behind)))))


def _behind(prefix: str) -> str:
    """The first text behind all that begin with ``prefix``; ``""`` when there is none."""
    kept = prefix.rstrip(chr(sys.maxunicode))
    if not kept:
        return ""
    last = ord(kept[-1]) + 1
    return kept[:-1] + chr(_BEYOND_SURROGATES if last == _SURROGATES else last)


def in_order(fn: str, conditions: Sequence[Expr]) -> Expr:
    """The ``conditions``, each spelt so itself, under ``fn``: what is joined by ``and`` and ``or`` stands once, in one order."""
    if fn not in _SETS:
        return Call(fn, tuple(conditions))
    flat: list[Expr] = []
    for each in conditions:
        if isinstance(each, Call) and each.fn == fn:
            flat.extend(each.args)
        else:
            flat.append(each)
    unlike = list(dict.fromkeys(flat))
    return unlike[0] if len(unlike) == 1 else Call(fn, tuple(sorted(unlike, key=_encode)))
