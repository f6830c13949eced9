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
    """Check that every field that needs a function has one, and no other field has.

    Args:
        option: The name of the parameter of ``open_hub``.
        functions: By store and field.
        declared: The stores and fields that need a function.
        example: An example of the parameter, for messages.
        declaring: How a field is declared to need a function, for messages.

    Raises:
        ConfigurationError: A field lacks its function, has one that it does not need, or has something that is not a function.
    """
    if not is_a(functions, Mapping) or not all(is_a(fields, Mapping) for fields in functions.values()):
        raise ConfigurationError(f"{option} must be a mapping, {example}, not {functions!r}")
    given = {(store, name) for store, fields in functions.items() for name in fields}
    wanted = set(declared)
    for store, name in sorted(wanted ^ given):
        what = "has no function" if (store, name) in wanted else f"is not declared: {declaring}"
        raise ConfigurationError(f"{option}: {store}.{name} {what}")
    for store, name in sorted(given):
        if not callable(functions[store][name]):
            raise ConfigurationError(f"{option}: {store}.{name} must be a function, not {functions[store][name]!r}")
