"""Text that merges: a column of text, and beside it the state from which its characters can be told apart.

The state of ``body`` lies in ``body_state``. It is a whole document in the encoding of Yjs, which pycrdt, the extra ``text``, reads
and writes, and two states join into one that has what both have: in any order, and as often as anybody likes. A row without a state
has the one that its text begins with, which is the same everywhere. So have two who make the same edit of the same document: what
they insert has the same name, since that is computed from the two.

A state from somebody else is read here before pycrdt sees it: it may only hold characters of one text, and everything that it
builds on.
"""

# pyright: reportUnknownMemberType=false
# pycrdt does not say of which document a text is

from __future__ import annotations

from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING

from atoma.contracts.extras import needs_extra
from atoma.contracts.limits import TEXT_STATE_BYTES_MAX
from atoma.schema.text_edits import text_edits
from atoma.schema.text_states import NAME_BITS, ROOT, BrokenText, ClosedText, text_of_state, united

if TYPE_CHECKING:
    from pycrdt import Doc, Text

LIBRARY, EXTRA = "pycrdt", "text"
_STATE = "_state"
_AMBIGUOUS = "the order of the text depends on who reads it"
_EMPTY = b"\x00\x00"
UNMADE = b""
"""In the place of an edit that could not be made, where the state that it was to be made of joins: no state, so that nothing takes it."""
_READ_MAX = 16
_READ: dict[bytes, str] = {}
_LOCK = Lock()


def state_of(name: str) -> str:
    """The column of the state of the text in column ``name``."""
    return name + _STATE


def text_of(state: str) -> str:
    """The column of the text whose state is in column ``state``."""
    return state.removesuffix(_STATE)


def read(state: bytes) -> str:
    """The text of a state, wherever that is from.

    Raises:
        BrokenText: It is no state.
    """
    known = _READ.get(state)
    if known is None:
        known = text_of_state(state)
        _remember(state, known)
    return known


def check(state: bytes) -> None:
    """See that a row may hold ``state``.

    Raises:
        BrokenText: It is no state, or too large.
    """
    if len(state) > TEXT_STATE_BYTES_MAX:
        raise ClosedText(
            f"the text and what is kept of its edits have {len(state):,} bytes, at most {TEXT_STATE_BYTES_MAX:,} are kept"
        )
    read(state)


def _remember(state: bytes, text: str) -> None:
    """Keep the text of a state: it is asked for several times in a row, and to read one takes a while."""
    with _LOCK:
        while len(_READ) >= _READ_MAX:
            del _READ[next(iter(_READ))]
        _READ[state] = text


def document(text: str, state: bytes | None) -> bytes:
    """The state of a row that holds ``text`` and ``state``: as it is, or brought to a text that was written beside it.

    What is none, since another tool has written it, counts as if it were not there.

    Raises:
        ClosedText: Nobody can go on with it.
    """
    try:
        return rewritten(_EMPTY if state is None else state, text)
    except ClosedText:
        raise
    except BrokenText:
        return rewritten(_EMPTY, text)


def rewritten(state: bytes, text: str) -> bytes:
    """``state`` edited so that it has ``text``; the same wherever somebody makes this edit of it.

    Raises:
        BrokenText: It is no state.
        ClosedText: Nobody can go on with it.
    """
    before = read(state)
    if before == text:
        return state
    name = int.from_bytes(sha256(b"%d:%s%s" % (len(state), state, text.encode())).digest()) >> (256 - NAME_BITS)
    content = _opened(name, state, before)
    with content.doc.transaction():
        at, place = 0, 0
        for start, end, inserted in text_edits(before, text):
            place += len(before[at:start].encode())
            if end > start:
                del content[place : place + len(before[start:end].encode())]
            if inserted:
                content.insert(place, inserted)
            at, place = end, place + len(inserted.encode())
    made: bytes = content.doc.get_update()
    if not _is_read_as(made, text):
        raise ClosedText(_AMBIGUOUS)
    return made


def _is_read_as(state: bytes, text: str) -> bool:
    """Whether what pycrdt has made is read as the text that was wanted; not where the pieces before it say what cannot have been."""
    try:
        return read(state) == text
    except ClosedText:  # it is too much: whoever decides says so
        return True
    except BrokenText:
        return False


def joined(one: bytes, other: bytes) -> tuple[bytes, str]:
    """The state that has what two states have, and its text.

    Raises:
        BrokenText: One is no state, or they have more than is kept.
    """
    if other == UNMADE:
        raise ClosedText(_AMBIGUOUS)
    if one == other:
        return one, read(one)
    made, text = united(one, other)
    _remember(made, text)
    return made, text


def _opened(name: int, state: bytes, text: str) -> Text:
    """A state that was read as ``text``; what is inserted there gets the ``name``.

    Raises:
        ClosedText: pycrdt does not read it so.
    """
    with needs_extra(EXTRA):
        from pycrdt import Doc, Text
    document: Doc[Text] = Doc(client_id=name)
    content = document.get(ROOT, type=Text)
    document.apply_update(state)
    if str(content) != text:
        raise ClosedText(_AMBIGUOUS)
    return content
