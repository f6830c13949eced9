"""Terms: what has a value for each row, as data that is placed among the sources of the query that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from atoma.contracts.query import Agg, Call, Col, Expr
from atoma.errors import QueryError


class Places(Protocol):
    """The sources that an expression can read where it stands, by their names."""

    def number(self, source: str) -> int:
        """The number of a source, see :class:`atoma.contracts.query.Col`; ``""`` is what the query reads first.

        Raises:
            QueryError: It is not there.
        """
        ...


Build: TypeAlias = Callable[[Places, bool], Expr]
"""An expression as data, given where it stands and whether it only counts when it is true."""


class Term:
    """Something that has a value for each row, of whatever type.

    Args:
        node: What it is as data, its columns numbered 0; or, where it reads more than one source, what makes it.
        store: The source whose column it reads; ``""`` where it is for the query to say.
    """

    __slots__ = ("_node", "store")

    def __init__(self, node: Expr | Build, store: str = "") -> None:
        self._node = node
        self.store = store

    @property
    def node(self) -> Expr:
        """It as data, in a query that reads nothing but the store of its column.

        Raises:
            QueryError: It reads more than one.
        """
        if callable(self._node):
            raise QueryError("this reads more than one store")
        return self._node

    @property
    def late(self) -> bool:
        """Whether it reads more than one source, so that only the query knows what it is."""
        return callable(self._node)

    def of_one(self, source: str) -> Expr | None:
        """It as data, in a query that reads nothing but ``source``; None where it reads anything else."""
        node, store = self._node, self.store
        return None if callable(node) or (store and store != source) else node

    def at(self, places: Places, *, kept: bool = False) -> Expr:
        """It as data where it stands.

        Args:
            places: The sources that it can read there.
            kept: It decides whether a row is kept, so that false and unknown are one.

        Raises:
            QueryError: It reads a source that is not there.
        """
        node = self._node
        if callable(node):
            return node(places, kept)
        number = places.number(self.store)
        return node if number == 0 else _moved(node, number)


def _moved(node: Expr, number: int) -> Expr:
    """``node``, whose columns are numbered 0, with another number."""
    if isinstance(node, Col):
        return Col(number, node.name)
    if isinstance(node, Call):
        return Call(node.fn, tuple([_moved(each, number) for each in node.args]))
    if isinstance(node, Agg):
        arg, where = node.arg, node.where
        return Agg(
            node.fn,
            None if arg is None else _moved(arg, number),
            None if where is None else _moved(where, number),
            node.distinct,
        )
    return node
