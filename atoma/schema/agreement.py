"""Whether two sides read alike what they exchange: they compare the forms in which each holds its columns.

A value travels without its type, so a number of cents that is read as tenths of cents is wrong by a factor of ten and looks
right. Versions of an application differ all the time, though: a column that one side lacks, a constraint, a further member of
an enumeration do not make a difference of form, and are judged value by value. Soft delete does: who does not know of it would
show rows that are deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from atoma.contracts.values import HIDDEN
from atoma.errors import SchemaMismatch

Forms: TypeAlias = Mapping[str, Mapping[str, str]]
"""The form of every column (:attr:`atoma.schema.fields.Field.form`) by store; what is not in it is not known."""

_NOTHING: Mapping[str, str] = {}
_OWN_JSON = frozenset(("clock", "duration", "uuid"))
"""Types that are packed as JSON under any name."""


def check_agreement(here: Forms, there: Forms, stores: Iterable[str], *, packed: bool) -> None:
    """See that both sides read every column of ``stores`` that both have in the same form.

    Args:
        here: Forms on this side.
        there: Forms at the hub, as far as it has told them.
        stores: The stores that are concerned.
        packed: Whether values are exchanged as sync does it, in packed form; direct calls name them as columns hold them.

    Raises:
        SchemaMismatch: They do not.
    """
    for store in stores:
        theirs, ours = there.get(store, _NOTHING), here.get(store, _NOTHING)
        if theirs and ours and (HIDDEN in theirs) is not (HIDDEN in ours):
            raise SchemaMismatch(store, HIDDEN, _soft(ours), _soft(theirs))
        for field, form in ours.items():
            other = theirs.get(field, form)
            if other != form and (packed or _type(other) != _type(form)):
                raise SchemaMismatch(store, field, _spoken(form, packed=packed), _spoken(other, packed=packed))


def _soft(forms: Mapping[str, str]) -> str:
    return "soft_delete=True" if HIDDEN in forms else "soft_delete=False"


def _type(form: str) -> str:
    """The type in a form, without how it is packed."""
    return form.partition(" ")[0]


def _spoken(form: str, *, packed: bool) -> str:
    kind = _type(form)
    return f"a NewType of {kind}" if packed and kind != form and kind not in _OWN_JSON else kind
