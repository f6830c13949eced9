"""What a device is given of a scope of which it takes a part: the rows in its shapes, of those that the rules let it see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from atoma.contracts.failures import info_from
from atoma.contracts.query import Call, Expr
from atoma.contracts.shapes import SHAPES_MAX, mark_of
from atoma.contracts.sync import OpenRequest, ShapeRefusal
from atoma.errors import QueryError, RemoteError
from atoma.hub.rules import PrincipalView
from atoma.query.shapes import Shapes, Taken
from atoma.schema.schema import Schema

VIEWS_MAX = 32
"""Sets of shapes of one session of which the conditions are kept."""


class ShapedViews:
    """The views that one principal has of scopes in shapes.

    Args:
        schema: The hub's stores.
        shapes: What it declares.
        view: What the rules let the principal see.
    """

    __slots__ = ("_of", "_schema", "_shapes", "_view")

    def __init__(self, schema: Schema, shapes: Shapes, view: PrincipalView) -> None:
        self._schema = schema
        self._shapes = shapes
        self._view = view
        self._of = lru_cache(VIEWS_MAX)(self._narrowed)

    def of(self, scope: str, shapes: Sequence[bytes]) -> PrincipalView:
        """The view of ``scope`` in ``shapes``; of all of it where there are none.

        Raises:
            RemoteError: ``SHAPE_UNKNOWN``, or ``TOO_LARGE``.
        """
        if not shapes:
            return self._view
        return self._of(scope, tuple(sorted(set(shapes))))

    def _narrowed(self, scope: str, shapes: tuple[bytes, ...]) -> PrincipalView:
        if len(shapes) > SHAPES_MAX:
            raise RemoteError(f"{len(shapes)} shapes of a scope, at most {SHAPES_MAX}", remote_code="TOO_LARGE")
        parts: dict[str, Expr | None] = {}
        for data in shapes:
            taken = self._taken(scope, data)
            parts[taken.store] = _either(parts, taken)
        stores = [store.name for store in self._schema.stores.values() if store.replicate]
        return self._view.narrowed(parts, stores, mark_of(shapes))

    def _taken(self, scope: str, data: bytes) -> Taken:
        try:
            taken = self._shapes.read(data)
        except QueryError as error:
            raise RemoteError(str(error), remote_code="SHAPE_UNKNOWN") from None
        store = self._schema.store(taken.store)
        if store.scope_field is None and store.fixed_scope != scope:
            message = f"no row of store {store.name!r} is of scope {scope!r}"
            raise RemoteError(message, remote_code="SHAPE_UNKNOWN")
        return taken

    def refused(self, request: OpenRequest) -> Mapping[str, tuple[ShapeRefusal, ...]]:
        """Those of the shapes in ``request`` that are not given out, by scope.

        Raises:
            RemoteError: ``TOO_LARGE`` or ``MALFORMED``.
        """
        told = {each.scope: each.shapes for each in request.shapes}
        if len(told) < len(request.shapes) or not told.keys() <= set(request.scopes):
            raise RemoteError("shapes are of scopes that are asked for, each of them once", remote_code="MALFORMED")
        if any(len(shapes) > SHAPES_MAX for shapes in told.values()):
            raise RemoteError(f"at most {SHAPES_MAX} shapes of a scope", remote_code="TOO_LARGE")
        return {scope: tuple(filter(None, (self._refusal(scope, data) for data in told[scope]))) for scope in told}

    def _refusal(self, scope: str, data: bytes) -> ShapeRefusal | None:
        try:
            self._taken(scope, data)
        except RemoteError as error:
            return ShapeRefusal(data, info_from(error))
        return None


def _either(parts: Mapping[str, Expr | None], taken: Taken) -> Expr | None:
    """What the rows of a store fulfil that are in ``taken``, or in what is in ``parts`` already; None for every row."""
    if taken.store not in parts:
        return taken.where
    before = parts[taken.store]
    return None if before is None or taken.where is None else Call("or", (before, taken.where))
