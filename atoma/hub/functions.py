"""Functions that an application gives to its hub, each for a field of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from atoma.contracts.checks import is_a
from atoma.errors import ConfigurationError


def check_functions(
    option: str,
    functions: Mapping[str, Mapping[str, Callable[..., object]]],
    declared: Iterable[tuple[str, str]],
    *,
    example: str,
    declaring: str,
) -> None:
    """See that every field that wants a function has one, and no other.

    Args:
        option: What ``open_hub`` calls them.
        functions: By store and field.
        declared: Stores and fields that want one.
        example: How they are given.
        declaring: How a field is declared to want one.

    Raises:
        ConfigurationError: A field has no function, or wants none; or what it has is none.
    """
    if not is_a(functions, Mapping) or not all(is_a(fields, Mapping) for fields in functions.values()):
        raise ConfigurationError(f"{option} is a mapping, {example}, not {functions!r}")
    given = {(store, name) for store, fields in functions.items() for name in fields}
    wanted = set(declared)
    for store, name in sorted(wanted ^ given):
        what = "has no function" if (store, name) in wanted else f"is not declared: {declaring}"
        raise ConfigurationError(f"{option}: {store}.{name} {what}")
    for store, name in sorted(given):
        if not callable(functions[store][name]):
            raise ConfigurationError(f"{option}: {store}.{name} takes a function, not {functions[store][name]!r}")
