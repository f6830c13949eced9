"""Searching texts: the words of a text, what a search asks for, and what it finds, the same on every engine.

A search is made of words, ``"phrases"``, beginnings (``ber*``), words that may be misspelled (``berr~``), words that must not be
there (``-bear``) and alternatives (``tea OR coffee``). All that stands side by side has to be there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TypeAlias

import msgspec

from atoma.contracts.query import SEARCH, Lit
from atoma.errors import QueryError

SEARCH_CHARACTERS, SEARCH_TERMS, SEARCH_NEAR = 1_000, 64, 8
_EDITS = (0, 0, 0, 1, 1, 1, 2)
"""How many letters may be wrong in a word of so many; in longer ones as many as in the last."""
_PART = re.compile(r'(-?)(?:"([^"]*)"|([^\s"]+))([*~]*)')
_PLAIN_WORD = re.compile("[0-9a-z]+")
_SATURATION = 1.2

Words: TypeAlias = tuple[str, ...]
WordPosition: TypeAlias = tuple[str, int, int]


class Phrase(msgspec.Struct, frozen=True):
    """Words that stand one behind the other.

    Attributes:
        words: The words, at least one.
        begins: Whether the last one is only the beginning of a word.
        near: Whether words that resemble its only one count, too.
    """

    words: Words
    begins: bool = False
    near: bool = False

    def takes_last(self, word: str) -> bool:
        """Whether its last word may be ``word``."""
        last = self.words[-1]
        if self.begins:
            return word.startswith(last)
        return resembles(last, word) if self.near else word == last


class Search(msgspec.Struct, frozen=True):
    """A search as it was asked for.

    Attributes:
        wanted: Of each group one term has to be there.
        unwanted: None of these may be.
    """

    wanted: tuple[tuple[Phrase, ...], ...]
    unwanted: tuple[Phrase, ...]

    @property
    def terms(self) -> tuple[Phrase, ...]:
        """Every term that is wanted."""
        return tuple([term for group in self.wanted for term in group])

    @property
    def near(self) -> tuple[Phrase, ...]:
        """Every term, wanted or not, that may be misspelled."""
        return tuple([term for term in (*self.terms, *self.unwanted) if term.near])


def search_literal(value: object) -> Lit:
    """``value``, the text of a search, as a literal.

    Raises:
        QueryError: It is none, or too long.
    """
    if not isinstance(value, str):
        raise QueryError(f"a search is text, not {str(value)[:80]!r}")
    parsed(value)
    return Lit(SEARCH, value)


@lru_cache(maxsize=256)
def parsed(text: str) -> Search:
    """What the text of a search asks for.

    Raises:
        QueryError: It asks for nothing, or for too much; an OR has only one side.
    """
    if len(text) > SEARCH_CHARACTERS:
        raise QueryError(f"a search has at most {SEARCH_CHARACTERS:,} characters")
    wanted: list[list[Phrase]] = []
    unwanted: list[Phrase] = []
    joins = False
    asked = 0
    for minus, phrase, word, behind in _PART.findall(text):
        if word == "OR" and not minus:
            if joins or not wanted:
                raise QueryError("OR stands between two words")
            joins = True
            continue
        marks = behind or word[len(word.rstrip("*~")) :]
        near, begins = "~" in marks, "*" in marks
        words = words_of(phrase or word)
        if near and (begins or len(words) > 1):
            raise QueryError("~ stands behind one whole word, which may be misspelled")
        asked += 1
        if joins and minus:
            raise QueryError("OR stands between two words that are wanted")
        if words:
            term = Phrase(words, begins, near)
            if minus:
                unwanted.append(term)
            elif joins and wanted:
                wanted[-1].append(term)
            else:
                wanted.append([term])
        joins = False
    if joins:
        raise QueryError("OR stands between two words")
    if asked > SEARCH_TERMS:
        raise QueryError(f"a search has at most {SEARCH_TERMS} words and phrases")
    if not wanted:
        raise QueryError("a search names at least one word that is wanted")
    search = Search(tuple(map(tuple, wanted)), tuple(unwanted))
    if len(search.near) > SEARCH_NEAR:
        raise QueryError(f"a search has at most {SEARCH_NEAR} words with ~")
    return search


def fts_text(text: str, known: Sequence[str] = ()) -> str:
    """The search ``text`` as FTS5 takes it; of the words ``known`` to the index those that it may mean as well."""
    search = parsed(text)

    def one(term: Phrase) -> str:
        words = " ".join(term.words)  # which have no quotes
        if term.near:  # the word itself stands there in any case: FTS5 has no word for nothing
            meant = " OR ".join([f'"{word}"' for word in (words, *filter(term.takes_last, known))])
            return f"({meant})"
        return f'"{words}"{" *" if term.begins else ""}'

    wanted = " AND ".join(f"({' OR '.join(map(one, group))})" for group in search.wanted)
    return f"({wanted})" + "".join(f" NOT {one(term)}" for term in search.unwanted)


def matches(text: str, texts: Sequence[str | None]) -> bool:
    """Whether the search ``text`` finds ``texts``; its words may stand in different ones of them."""
    search, found = parsed(text), [words_of(each) for each in texts if each is not None]
    if not all(any(_stands(term, words) for term in group for words in found) for group in search.wanted):
        return False
    return not any(_stands(term, words) for term in search.unwanted for words in found)


def rank(text: str, texts: Sequence[str | None]) -> float:
    """How well ``texts`` fit the search ``text``: more the more often its words stand there, each time by less.

    It tells nothing of other rows, so that whoever may not read these learns nothing of them.
    """
    found = [words_of(each) for each in texts if each is not None]
    times = [sum(len(_places(term, words)) for words in found) for term in parsed(text).terms]
    return sum([count / (count + _SATURATION) for count in times], 0.0)


def highlighted(text: str, shown: str, before: str, after: str) -> str:
    """``shown`` with ``before`` and ``after`` around what the search ``text`` finds in it."""
    places = located(shown)
    return _marked(shown, places, _found(text, places), (before, after))


def snippet(text: str, shown: str, before: str, after: str, count: int) -> str:
    """At most ``count`` words of ``shown`` from around the first one that the search ``text`` finds, highlighted."""
    places = located(shown)
    found = _found(text, places)
    size = max(count, 1)
    first = max(min(min(found, default=0) - size // 4, len(places) - size), 0)
    kept = places[first : first + size]
    if not kept:
        return shown if len(shown) <= size else ""
    begin = 0 if first == 0 else kept[0][1]
    end = len(shown) if first + size >= len(places) else kept[-1][2]
    inside = {at - first for at in found if first <= at < first + size}
    moved = [(word, start - begin, stop - begin) for word, start, stop in kept]
    marked = _marked(shown[begin:end], moved, inside, (before, after))
    return f"{'…' if begin else ''}{marked}{'…' if end < len(shown) else ''}"


def _found(text: str, places: Sequence[WordPosition]) -> set[int]:
    """The numbers of the words that are part of what is wanted."""
    words = tuple([word for word, _, _ in places])
    return {
        at + offset for term in parsed(text).terms for at in _places(term, words) for offset in range(len(term.words))
    }


def _marked(shown: str, places: Sequence[WordPosition], found: Collection[int], marks: tuple[str, str]) -> str:
    parts: list[str] = []
    at = 0
    for number, (_, begin, end) in enumerate(places):
        if number in found:
            parts += [shown[at:begin], marks[0], shown[begin:end], marks[1]]
            at = end
    return "".join([*parts, shown[at:]])


def _stands(term: Phrase, words: Words) -> bool:
    return bool(_places(term, words))


def _places(term: Phrase, words: Words) -> list[int]:
    """Where ``term`` begins among ``words``."""
    *before, _ = term.words
    size = len(term.words)
    return [
        at
        for at in range(len(words) - size + 1)
        if list(words[at : at + size - 1]) == before and term.takes_last(words[at + size - 1])
    ]


def resembles(asked: str, word: str) -> bool:
    """Whether ``word`` is ``asked`` with a letter too many, too few, changed, or exchanged with the one beside it.

    In words of three letters and more one such edit is allowed, in words of six and more two are.
    """
    most = _EDITS[min(len(asked), len(_EDITS) - 1)]
    if (
        abs(len(asked) - len(word)) > most or len(set(asked) ^ set(word)) > 2 * most
    ):  # an edit changes at most two letters
        return False
    return _within(asked, word, most)


def _within(one: str, other: str, edits: int) -> bool:
    at, end = 0, min(len(one), len(other))
    while at < end and one[at] == other[at]:
        at += 1
    one, other = one[at:], other[at:]
    if not one or not other:
        return len(one) + len(other) <= edits
    if not edits:
        return False
    edits -= 1
    return (
        _within(one[1:], other[1:], edits)
        or _within(one[1:], other, edits)
        or _within(one, other[1:], edits)
        or (one[:2] == other[1::-1] and _within(one[2:], other[2:], edits))
    )


@lru_cache(maxsize=1024)
def words_of(text: str) -> Words:
    """The words of ``text``: what it has of letters and digits, small and without accents."""
    if text.isascii():
        return tuple(_PLAIN_WORD.findall(text.lower()))
    return tuple([word for word, _, _ in located(text)])


def located(text: str) -> list[WordPosition]:
    """The words of ``text``, each with where it begins and ends."""
    found: list[WordPosition] = []
    letters: list[str] = []
    begin = 0
    for at, character in enumerate(text):
        folded = _folded(character)
        if folded and (letters or unicodedata.category(character) != "Mc"):
            begin = begin if letters else at
            letters.append(folded)
        elif letters and unicodedata.category(character) != "Mn":
            found.append(("".join(letters), begin, at))
            letters = []
    if letters:
        found.append(("".join(letters), begin, len(text)))
    return found


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    """What ``character`` is in a word; ``""`` when it is in none, or is an accent alone."""
    if unicodedata.category(character)[0] not in "LN" and unicodedata.category(character) not in ("Co", "Mc"):
        return ""
    parts = unicodedata.normalize("NFD", character.lower())
    return "".join([each for each in parts if unicodedata.category(each) != "Mn"])
