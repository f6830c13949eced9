"""SQLite's LIKE in plain Python."""

from __future__ import annotations

from functools import lru_cache


def like(pattern: str, text: str) -> bool:
    r"""SQLite's ``text LIKE pattern ESCAPE '\'``.

    ``%`` is any text, ``_`` one code point, ASCII letters compare without case, and both sides end at a NUL.
    """
    return _fits(_tokens(pattern.partition("\x00")[0]), _fold(text.partition("\x00")[0]))


LOWER = {capital: capital + 32 for capital in range(ord("A"), ord("Z") + 1)}
"""ASCII letters by the small ones: SQLite knows the case of no others."""
_ANY, _ONE, _NEVER = object(), object(), object()


def _fold(text: str) -> str:
    return text.translate(LOWER)


@lru_cache(maxsize=256)
def _tokens(pattern: str) -> tuple[object, ...]:
    """What ``pattern`` is made of; live queries ask for the same one with every row."""
    tokens: list[object] = []
    characters = iter(_fold(pattern))
    for character in characters:
        if character == "%":
            if not tokens or tokens[-1] is not _ANY:
                tokens.append(_ANY)
        elif character == "_":
            tokens.append(_ONE)
        elif character == "\\":
            tokens.append(next(characters, _NEVER))
        else:
            tokens.append(character)
    return tuple(tokens)


def _fits(tokens: tuple[object, ...], text: str) -> bool:
    """Greedy matching with one point of return: the last ``%`` may take one more character."""
    at = position = 0
    retry_at = -1
    retry_position = 0
    while position < len(text):
        token = tokens[at] if at < len(tokens) else _NEVER
        if token is _ANY:
            at, retry_at, retry_position = at + 1, at + 1, position
        elif token is _ONE or token == text[position]:
            at, position = at + 1, position + 1
        elif retry_at >= 0:
            retry_position += 1
            at, position = retry_at, retry_position
        else:
            return False
    return all(token is _ANY for token in tokens[at:])
