"""Regular expressions: RE2's, whose time is at most the text times the pattern, whatever both of them are.

They are looked for anywhere in a text. The library is the extra ``regex``; without it a query that asks is refused.
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportMissingTypeStubs=false
# re2 has no stubs

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple, cast

from atoma.contracts.extras import install_line, needs_extra
from atoma.contracts.limits import REGEX_MEMORY, REGEX_STEPS_MAX
from atoma.contracts.query import REGEX, Lit
from atoma.errors import QueryError

_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "invalid perl operator": "there is no looking ahead or behind",
        "invalid escape sequence": r"nothing refers back to a group, and a text ends at \z",
        "invalid repetition size": "something is repeated at most 1,000 times",
        "pattern too large": "repeat less often, or name fewer kinds of characters",
    }
)
_SYNTAX = "the syntax is RE2's: https://github.com/google/re2/wiki/Syntax"


class Regex(NamedTuple):
    """A regular expression that is ready to look.

    Attributes:
        search: Looks through a text in UTF-8; None where nothing is found.
        longest: The bytes of the longest text that it looks through.
    """

    search: Callable[[bytes], object]
    longest: int


def regex_literal(value: object) -> Lit:
    """``value``, the text of a regular expression, as a literal.

    Raises:
        QueryError: It is none, or too large; or the extra ``regex`` is not installed.
    """
    if not isinstance(value, str):
        raise QueryError(f"a regular expression is text, not {str(value)[:80]!r}")
    parsed(value)
    return Lit(REGEX, value)


@lru_cache(maxsize=64)
def parsed(pattern: str) -> Regex:
    """The regular expression that ``pattern`` is.

    Raises:
        QueryError: It is none, or too large; or the extra ``regex`` is not installed.
    """
    try:
        with needs_extra("regex"):
            import re2  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError:
        raise QueryError("regular expressions are RE2's, which is not installed", hint=install_line("regex")) from None
    if "\x00" in pattern:
        raise QueryError("a regular expression has no NUL, as no text has", hint=r"write \x00 in a class of characters")
    options = re2.Options()
    options.max_mem, options.never_capture, options.log_errors = REGEX_MEMORY, True, False
    try:
        found = re2.compile(pattern, options)
    except re2.error as error:
        raise _refused(pattern, error.args[0]) from None
    return Regex(cast("Callable[[bytes], object]", found.search), REGEX_STEPS_MAX // cast("int", found.programsize))


def looks(text: str, pattern: str) -> bool:
    """Whether ``text`` has a part that the regular expression ``pattern`` describes.

    Raises:
        QueryError: The text is too long for it.
    """
    regex, data = parsed(pattern), text.encode()
    if len(data) > regex.longest:
        raise QueryError(
            f"this regular expression looks through texts of at most {regex.longest:,} bytes, and one has {len(data):,}",
            hint="name fewer kinds of characters, or look at the beginning: substr(1, 10_000)",
        )
    return regex.search(data) is not None


def _refused(pattern: str, words: object) -> QueryError:
    said = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
    hint = next((hint for begins, hint in _HINTS.items() if said.startswith(begins)), _SYNTAX)
    return QueryError(f"{pattern[:80]!r} is no regular expression of RE2: {said[:120]}", hint=hint)
