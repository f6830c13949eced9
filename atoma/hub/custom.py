"""Conflict rules of an application: functions of the hub that settle a column which two devices have written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from atoma.contracts.values import RowImage, Scalar
from atoma.errors import ConflictError, ValidationError
from atoma.hub.functions import check_functions
from atoma.schema.spec import StoreSpec

_log = logging.getLogger("atoma.hub")


@dataclass(frozen=True, slots=True)
class Met:
    """The input of a custom conflict rule, which settles a field that two devices have written.

    The rule sees nothing else, since it may be called again.

    Attributes:
        store: The store.
        id: The row.
        field: The field.
        base: Its value before the others wrote it; also None if the log no longer holds it.
        mine: The value that arrives.
        theirs: The value at the hub.
        row: The row as the hub has it.
    """

    store: str
    id: str
    field: str
    base: Any
    mine: Any
    theirs: Any
    row: Any


CustomRule: TypeAlias = Callable[[Met], object]
"""A function that returns the new value of the field, or raises :class:`atoma.errors.ConflictError` to refuse the write, which then
waits in the device's inbox: ``lambda met: merged(met.base, met.mine, met.theirs)``. It must be pure and quick."""


class RuleRefused(Exception):
    """A refusal by a custom rule; it becomes an outcome and never leaves the hub as an exception."""


class CustomRules:
    """The functions of a hub, by store and field, checked against its stores.

    Args:
        stores: The hub's stores by name.
        functions: By store and field.

    Raises:
        ConfigurationError: A field that a store declares as ``custom`` has no function, or a function has no such field.
    """

    __slots__ = ("_functions",)

    def __init__(self, stores: Mapping[str, StoreSpec[Any]], functions: Mapping[str, Mapping[str, CustomRule]]) -> None:
        check_functions(
            "conflicts", functions, [(store.name, name) for store in stores.values() for name in store.merging.customs],
            example="{'cards': {'body': lambda met: …}}", declaring="StoreSpec(…, merge={…: 'custom'})",
        )  # fmt: skip
        self._functions = functions

    def decide(
        self, store: StoreSpec[Any], id: str, name: str, before: RowImage | None, mine: Scalar, row: RowImage
    ) -> Scalar:
        """Return the value that column ``name`` gets.

        Args:
            store: The store.
            id: The row.
            name: The column.
            before: The row before the others wrote it; None if the log no longer holds it.
            mine: The value that arrives.
            row: The row as the hub has it.

        Raises:
            RuleRefused: The function refuses the write, fails, or returns a value that the column cannot hold.
        """
        field = store.fields[name]

        def value(stored: Scalar) -> object:
            return stored if stored is None or field.decode is None else field.decode(stored)

        met = Met(
            store.name, id, name, None if before is None else value(before[name]), value(mine), value(row[name]),
            store.decode(id, row),
        )  # fmt: skip
        try:
            return field.encode(self._functions[store.name][name](met))
        except ConflictError as error:
            raise RuleRefused(str(error)) from None
        except ValidationError as error:
            raise RuleRefused(f"its rule returned a value that the column cannot hold ({error})") from None
        except Exception as error:  # whatever an application's function raises refuses the write
            _log.exception("the rule of %s.%s failed on row %s", store.name, name, id)
            raise RuleRefused(f"its rule failed ({type(error).__name__})") from None


NO_CUSTOM_RULES = CustomRules({}, {})
