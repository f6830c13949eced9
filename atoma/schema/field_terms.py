"""The text of a search taken apart by the fields that it names: ``title:tea -body:milk``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PART = re.compile(r'(-?)((?:[A-Za-z_][A-Za-z0-9_]*:(?=[^\s:]))?)("[^"]*"[*~]*|[^\s"]+)')


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a search that looks into one field, or into all.

    Attributes:
        field: The field; None for all that are searched.
        text: What has to be there, as a search.
        wanted: Whether it has to be there, or must not be.
    """

    field: str | None
    text: str
    wanted: bool = True


def by_field(text: str, fields: Sequence[str]) -> list[list[Piece]] | None:
    """What ``text`` asks for: of each group one piece has to hold. None when it names none of ``fields``.

    What stands before a colon and is no field is a word as any other. Texts that are no search come back whole, so that the
    check of the search says what is wrong.
    """
    groups: list[list[Piece]] = []
    joins = False
    named = False
    for minus, prefix, rest in _PART.findall(text):
        if (minus, prefix, rest) == ("", "", "OR"):
            if joins or not groups or not groups[-1][0].wanted:
                return None
            joins = True
            continue
        field = prefix[:-1] if prefix[:-1] in fields else None
        named = named or field is not None
        piece = Piece(field, rest if field else prefix + rest, not minus)
        if joins and minus:
            return None
        if joins:
            groups[-1].append(piece)
        else:
            groups.append([piece])
        joins = False
    return None if joins or not named else _together(groups)


def _together(groups: Sequence[Sequence[Piece]]) -> list[list[Piece]]:
    """``groups``, with those that are wanted in the same place as one search."""
    texts: dict[str | None, list[str]] = {}
    others: list[list[Piece]] = []
    for group in groups:
        place = group[0].field
        if group[0].wanted and all(piece.field == place for piece in group):
            texts.setdefault(place, []).append(" OR ".join([piece.text for piece in group]))
        else:
            others.append(list(group))
    return [*[[Piece(place, " ".join(wanted))] for place, wanted in texts.items()], *others]


def without_field(text: str, field: str) -> str:
    """``text`` with what it wants of ``field`` wanted of any text."""

    def own(found: re.Match[str]) -> str:
        minus, prefix, rest = found.groups()
        return f"{minus}{'' if prefix == f'{field}:' else prefix}{rest}"

    return _PART.sub(own, text)
