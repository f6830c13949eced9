"""The function table: the functions that a query may call, with their argument and result types.

A function has three further rows: its meaning in Python (``atoma.query.functions``), its SQL
(``atoma_stores.sql.functions``) and its line in the documentation. Modules in which one is missing do not import
(:func:`for_each`), and a test holds the documentation to it.

Types are ``int``, ``real``, ``text``, ``blob``, ``bool``, ``time`` (a moment), ``date``, ``clock`` (a time of day), ``duration``,
``uuid``, ``decimal``, ``decimal(2)`` (with that many places) and ``json``; a ``?`` behind one says that the value may be NULL.
A ``path`` is a value that says where in a document: ``$.size``, ``$.tags[0]``; a ``search`` is one that says what to search for; a
``regex`` is a regular expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

OperandNeed: TypeAlias = Literal["", "equality", "order", "text", "total"]
"""The operations that the type of a column must carry out as Python does before the function may use it."""


class Function(msgspec.Struct, frozen=True):
    """A row of the function table.

    Attributes:
        takes: The types of the arguments in order: a type, ``same`` (all of these have one type, a literal takes that of
            its neighbours), or ``any``.
        gives: The type of the result; ``same`` is the one of its ``same`` arguments.
        rest: Whether the last argument may be repeated any number of times, or be left out.
        need: What its columns have to answer.
        nullable: Whether the result may be NULL: ``never``, ``always``, ``any`` when an argument is, ``all`` when every one
            is, ``same`` when one of the ``same`` arguments is, ``real`` like ``any``, and when it is a real, as infinity
            less infinity is not a number.
        sign: How it is written; ``""`` for ``name(…)``.
        literals: The numbers of arguments that have to be literals.
        among: The types that ``same`` may be; empty for every type. A decimal stands for those with places.
        library: The library that it needs; ``""`` for none.
    """

    takes: tuple[str, ...]
    gives: str
    rest: bool = False
    need: OperandNeed = ""
    nullable: Literal["never", "always", "any", "all", "same", "real"] = "any"
    sign: str = ""
    literals: tuple[int, ...] = ()
    among: tuple[str, ...] = ()
    library: str = ""


_PAIR = ("same", "same")
_NUMBERS = ("int", "real")
_PLACE = ("json", "path")
_SEARCHED = ("search", "text")
_SUMMED = (*_NUMBERS, "decimal", "duration")

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
        "like": Function(("text", "text"), "bool", need="text", sign="LIKE", literals=(1,)),
        "starts": Function(("text", "text"), "bool", need="text", literals=(1,)),
        "ends": Function(("text", "text"), "bool", need="text", literals=(1,)),
        "contains": Function(("text", "text"), "bool", need="text", literals=(1,)),
        "regex": Function(("text", "regex"), "bool", need="text", literals=(1,), library="re2"),
        "if": Function(("bool", "same", "same"), "same", nullable="same"),
        "coalesce": Function(("same",), "same", rest=True, nullable="all"),
        "add": Function(_PAIR, "same", need="total", nullable="real", sign="+", among=_SUMMED),
        "sub": Function(_PAIR, "same", need="total", nullable="real", sign="-", among=_SUMMED),
        "mul": Function(_PAIR, "same", need="total", nullable="real", sign="*", among=_NUMBERS),
        "div": Function(_PAIR, "real", need="total", nullable="always", sign="/", among=_NUMBERS),
        "floordiv": Function(_PAIR, "int", need="total", nullable="always", sign="//", among=("int",)),
        "mod": Function(_PAIR, "int", need="total", nullable="always", sign="%", among=("int",)),
        "neg": Function(("same",), "same", need="total", among=_SUMMED),
        "abs": Function(("same",), "same", need="total", among=_SUMMED),
        "round": Function(("real", "int"), "real", need="total", literals=(1,)),
        "lower": Function(("text",), "text", need="text"),
        "upper": Function(("text",), "text", need="text"),
        "length": Function(("text",), "int", need="text"),
        "concat": Function(("text",), "text", rest=True, need="text"),
        "substr": Function(("text", "int", "int"), "text", need="text", literals=(1, 2)),
        "replace": Function(("text", "text", "text"), "text", need="text", literals=(1, 2)),
        "trim": Function(("text",), "text", need="text"),
        "ltrim": Function(("text",), "text", need="text"),
        "rtrim": Function(("text",), "text", need="text"),
        "to_int": Function(("same",), "int", need="order", nullable="always", among=("real", "text", "bool")),
        "to_real": Function(("same",), "real", need="order", nullable="always", among=("int", "text")),
        "to_text": Function(("same",), "text", need="order", among=("int", "date", "time", "clock", "uuid")),
        "to_date": Function(("time",), "date"),
        "year": Function(("same",), "int", among=("date", "time")),
        "month": Function(("same",), "int", among=("date", "time")),
        "day": Function(("same",), "int", among=("date", "time")),
        "hour": Function(("same",), "int", among=("clock", "time")),
        "minute": Function(("same",), "int", among=("clock", "time")),
        "second": Function(("same",), "int", among=("clock", "time")),
        "matches": Function(_SEARCHED, "bool", rest=True, need="text", nullable="never", literals=(0,)),
        "rank": Function(_SEARCHED, "real", rest=True, need="text", nullable="never", literals=(0,)),
        "highlight": Function((*_SEARCHED, "text", "text"), "text", need="text", literals=(0, 2, 3)),
        "snippet": Function((*_SEARCHED, "text", "text", "int"), "text", need="text", literals=(0, 2, 3, 4)),
        "json_int": Function(_PLACE, "int", nullable="always", literals=(1,)),
        "json_real": Function(_PLACE, "real", nullable="always", literals=(1,)),
        "json_text": Function(_PLACE, "text", nullable="always", literals=(1,)),
        "json_bool": Function(_PLACE, "bool", nullable="always", literals=(1,)),
        "json_has": Function((*_PLACE, "same"), "bool", literals=(1,), among=("int", "text")),
    }
)


class Aggregate(msgspec.Struct, frozen=True):
    """One aggregate.

    Attributes:
        takes: The types of its argument; ``decimal`` stands for those with places.
        gives: The type of the result; ``same`` is the argument's.
        need: What its column has to answer.
        empty: Whether it is NULL if there are no values.
    """

    takes: tuple[str, ...]
    gives: str
    need: OperandNeed = ""
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
    """Return a type without its places: ``decimal`` for ``decimal(2)``."""
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


__all__ = ["AGGREGATES", "COMPARISONS", "FUNCTIONS", "Aggregate", "Function", "OperandNeed", "family", "for_each"]
