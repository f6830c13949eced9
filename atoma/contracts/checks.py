"""Checks of arguments at run time: static types are a promise of the caller, not a fact."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.errors import ValidationError


def is_a(value: object, kind: type) -> bool:
    """Return whether ``value`` is an object of ``kind``, whatever its declared type says; a class is not an object of itself."""
    return isinstance(value, kind) and not isinstance(value, type)


def check_word(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse a misspelt choice, which would otherwise silently mean the default.

    Raises:
        ValidationError: ``value`` is not one of ``known``.
    """
    if value not in known:
        raise ValidationError(f"{name} must be one of {', '.join(known)}, not {value!r}", field=name, value=value)
