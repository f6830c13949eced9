"""The function table: what a query may call, what it takes and what it gives.

A function has three further rows: its meaning in Python (``atoma.query.functions``), its SQL
(``atoma_stores.sql.functions``) and its line in the documentation. Modules in which one is missing do not import
(:func:`for_each`), and a test holds the documentation to it.

Types are ``int``, ``real``, ``text``, ``blob``, ``bool``, ``time`` (a moment), ``date``, ``clock`` (a time of day), ``duration``,
``uuid``, ``decimal``, ``decimal(2)`` (with that many places) and ``json``; a ``?`` behind one says that the value may be NULL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeVar

T = TypeVar("T")

Need: TypeAlias = Literal["", "equality", "order", "text", "total"]
"""What the type of a column has to answer as Python does, so that the function may look at it."""


@dataclass(frozen=True, slots=True)
class Function:
    """One row of the table.

    Attributes:
        takes: The types of the arguments in order: a type, ``same`` (all that say so have one type, a literal takes that of
            its neighbours), or ``any``.
        gives: The type of the result; ``same`` is the one of its ``same`` arguments.
        rest: Whether the last argument may come any number of times, none included.
        need: What its columns have to answer.
        nullable: Whether the result may be NULL: ``never``, ``any`` when an argument is, ``all`` when every one is.
        sign: How people write it; ``""`` for ``name(…)``.
        literal: The number of an argument that has to be a literal; -1 for none.
    """

    takes: tuple[str, ...]
    gives: str
    rest: bool = False
    need: Need = ""
    nullable: Literal["never", "any", "all"] = "any"
    sign: str = ""
    literal: int = -1


_PAIR = ("same", "same")

FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        "and": Function(("bool",), "bool", rest=True, sign="AND"),
        "or": Function(("bool",), "bool", rest=True, sign="OR"),
        "not": Function(("bool",), "bool", sign="NOT"),
        "eq": Function(_PAIR, "bool", need="equality", sign="="),
        "ne": Function(_PAIR, "bool", need="equality", sign="<>"),
        "lt": Function(_PAIR, "bool", need="order", sign="<"),
        "le": Function(_PAIR, "bool", need="order", sign="<="),
        "gt": Function(_PAIR, "bool", need="order", sign=">"),
        "ge": Function(_PAIR, "bool", need="order", sign=">="),
        "is_same": Function(_PAIR, "bool", need="equality", nullable="never", sign="IS"),
        "is_null": Function(("any",), "bool", nullable="never"),
        "in": Function(_PAIR, "bool", rest=True, need="equality", sign="IN"),
        "like": Function(("text", "text"), "bool", need="text", sign="LIKE", literal=1),
        "coalesce": Function(("same",), "same", rest=True, nullable="all"),
        "lower": Function(("text",), "text", need="text"),
        "upper": Function(("text",), "text", need="text"),
        "length": Function(("text",), "int", need="text"),
    }
)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate.

    Attributes:
        takes: The types of its argument; ``decimal`` stands for those with places.
        gives: The type of the result; ``same`` is the argument's.
        need: What its column has to answer.
        empty: Whether it is NULL over no values.
    """

    takes: tuple[str, ...]
    gives: str
    need: Need = ""
    empty: bool = True


AGGREGATES: Mapping[str, Aggregate] = MappingProxyType(
    {
        "count": Aggregate(("any",), "int", empty=False),
        "sum": Aggregate(("int", "real", "decimal", "duration"), "same", need="total"),
        "avg": Aggregate(("int", "real"), "real", need="total"),
        "min": Aggregate(("any",), "same", need="order"),
        "max": Aggregate(("any",), "same", need="order"),
    }
)


def family(kind: str) -> str:
    """A type without its places: ``decimal`` for ``decimal(2)``."""
    return kind.partition("(")[0]


COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
"""The functions that compare two values by their order."""


def for_each(table: Mapping[str, object], of: str, rows: dict[str, T]) -> Mapping[str, T]:
    """``rows`` of a module, one for each row of ``table``.

    Args:
        table: :data:`FUNCTIONS` or :data:`AGGREGATES`.
        of: What the rows are, for the message.
        rows: The rows, by name.

    Raises:
        ImportError: One is missing, or one is of nothing in the table.
    """
    wrong = sorted(table.keys() ^ rows.keys())
    if wrong:
        raise ImportError(f"{of}: {', '.join(wrong)}: a function has every one of its rows, see CONTRIBUTING.md")
    return MappingProxyType(rows)


__all__ = ["AGGREGATES", "COMPARISONS", "FUNCTIONS", "Aggregate", "Function", "Need", "family", "for_each"]
