"""The capabilities that a hub announces in its greeting, so that what it cannot answer, or would misread, is not even sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from types import MappingProxyType

import msgspec

from atoma.contracts.functions import AGGREGATES, FUNCTIONS
from atoma.contracts.limits import Bounds
from atoma.contracts.mutations import EDIT_KINDS
from atoma.contracts.query import PLAN_VERSION


class Understood(msgspec.Struct, frozen=True, omit_defaults=True):
    """The queries and writes that one side understands. A side that announces nothing, because it is older than plans, understands none.

    Attributes:
        plan: Versions of the form in which plans travel.
        functions: Names of the functions and aggregates that a plan may call.
        bounds: Bounds of a query that are lower than those of the table, by their names in :class:`Bounds`.
        forms: Forms of the columns of every store; empty when the other side does not say how it reads them.
        edits: Kinds of edits that the operations of a direct write may have.
    """

    plan: tuple[int, ...] = ()
    functions: tuple[str, ...] = ()
    bounds: dict[str, int] = {}
    forms: dict[str, dict[str, str]] = {}
    edits: tuple[str, ...] = ()


_NO_FORMS: Mapping[str, dict[str, str]] = MappingProxyType({})


def understood_with(
    bounds: Bounds, forms: Mapping[str, dict[str, str]] = _NO_FORMS, unknown: Collection[str] = ()
) -> Understood:
    """What this code understands, kept to ``bounds``, where columns have ``forms``, but for ``unknown`` functions.

    Functions whose library is not installed are unknown as well.
    """
    missing = [name for name, each in FUNCTIONS.items() if each.library and find_spec(each.library) is None]
    functions = {*FUNCTIONS, *AGGREGATES}.difference(unknown, missing)
    return Understood((PLAN_VERSION,), tuple(sorted(functions)), bounds.lower(), dict(forms), EDIT_KINDS)


UNDERSTOOD = understood_with(Bounds())
"""What this code understands."""
