"""States of texts: they join in any order, edits are small, and what somebody else says is one is looked at first."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoma import StoreSpec
from atoma.contracts.limits import TEXT_BYTES_MAX, TEXT_PIECES_MAX, TEXT_STATE_BYTES_MAX
from atoma.errors import SchemaError, ValidationError
from atoma.schema.text_edits import text_edits
from atoma.schema.text_states import BrokenText, ClosedText, text_of_state
from atoma.schema.texts import document, joined, read, rewritten

pycrdt = pytest.importorskip("pycrdt", reason="the extra text is not installed")

LETTERS = "abé😀 \n"
TEXTS = st.text(LETTERS, max_size=12)


@dataclass(frozen=True)
class Note:
    id: str
    body: str = ""
    body_state: bytes | None = None
    shout: str | None = None
    shout_state: bytes | None = None
    count: int = 0


NOTES = StoreSpec("notes", Note, merge={"body": "text"})


@settings(max_examples=60)
@given(TEXTS, st.lists(TEXTS, min_size=3, max_size=3), TEXTS)
def test_states_join_alike_in_any_order_and_as_often_as_anybody_likes(begin: str, edits: list[str], then: str) -> None:
    base = document(begin, None)
    made = [rewritten(base, text) for text in edits]
    assert [read(state) for state in made] == edits
    both, _ = joined(made[0], made[1])
    made[2] = rewritten(both, then)
    results = set[str]()
    for order in permutations(made):
        state = base
        for each in (*order, *order):
            state, text = joined(state, each)
            assert read(state) == text
        results.add(read(state))
    assert len(results) == 1
    assert joined(base, made[0])[0] == made[0] == document(edits[0], made[0])


def long_text(words: int) -> str:
    return " ".join(f"word{number}" for number in range(words))


@pytest.mark.parametrize("words", [3, 400, 3_000])
def test_an_edit_of_a_long_text_touches_what_was_edited(words: int) -> None:
    base = document(long_text(words), None)
    mine = rewritten(base, long_text(words).replace("word1 ", "first ").replace(f"word{words - 1}", "last"))
    theirs = rewritten(base, long_text(words).replace("word1 ", "word1, "))
    _, both = joined(mine, theirs)
    assert both.endswith("last") and both.count("first") == 1 and both.count("word0") == 1 and "," in both
    assert len(mine) < len(base) + 400


def document_of(build: Any) -> bytes:
    made = pycrdt.Doc(client_id=7)
    build(made)
    state: bytes = made.get_update()
    return state


def half(parts: Sequence[str]) -> bytes:
    """What comes second, without what comes first."""
    made = pycrdt.Doc(client_id=7)
    text = made.get("text", type=pycrdt.Text)
    known = made.get_state()
    for part in parts:
        known = made.get_state()
        text.insert(len(str(text).encode()), part)
    state: bytes = made.get_update(known)
    return state


Place = tuple[int, int]


def number(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def piece(text: str, left: Place | None = None, right: Place | None = None) -> bytes:
    """As Yjs writes it: beside what, and what."""
    sides = b"".join([number(name) + number(at) for name, at in filter(None, (left, right))])
    content = text.encode()
    info = bytes([4 | (0x80 if left else 0) | (0x40 if right else 0)])
    return info + (sides or b"\x01\x04text") + number(len(content)) + content


def state_of_pieces(
    names: Sequence[tuple[int, Sequence[bytes]]], gaps: Mapping[int, Sequence[Place]] | None = None
) -> bytes:
    said = [number(len(names))]
    for name, pieces in names:
        said += [number(len(pieces)), number(name), b"\x00", *pieces]
    said.append(number(len(gaps or {})))
    for name, cut in (gaps or {}).items():
        said += [number(name), number(len(cut)), *(number(at) + number(length) for at, length in cut)]
    return b"".join(said)


def bold(made: Any) -> None:
    made["text"] = text = pycrdt.Text("abc")
    text.format(0, 2, {"b": True})


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00",
        b"\x01\x01\x07\x00\x04\x01\x04text\xff\xff\xff\xff\x07a\x00",
        b"\x01\x01\x07\x00\x00\xff\xff\xff\xff\xff\xff\xff\x7f\x00",
        b"\x01\x01\x07\x00\x84\x07\x00\x01a\x00",  # beside itself
        b"\x00\x01\x07\x01\x00\x05",  # takes away what is not there
        state_of_pieces([(7, [piece("ab")]), (8, [piece("c", left=(9, 0))])]),  # beside what is missing
        state_of_pieces([(7, [piece("a"), piece("b", left=(7, 2)), piece("c")])]),  # beside what comes later
        state_of_pieces([(7, [piece("a", left=(8, 0))]), (8, [piece("b", left=(7, 0))])]),  # beside each other
        state_of_pieces(
            [(7, [piece("abc")]), (8, [piece("d", left=(7, 2), right=(7, 0))])]
        ),  # behind the end, before the beginning
        state_of_pieces([(7, [piece("abc")]), (8, [piece("d", left=(7, 2), right=(7, 1))])]),  # and within one piece
        state_of_pieces([(7, [piece("a😀")])], {7: [(0, 2)]}),  # half a character
        state_of_pieces([(7, [piece("abcd")])], {7: [(2, 1), (0, 1)]}),  # in no order
        state_of_pieces([(7, [piece("a")]), (7, [piece("b")])]),  # twice
        b"\x01\x01\x87\x00\x00\x04\x01\x04text\x01a\x00",  # a name that is not as short as it can be
        b"\x01\x01\x07\x00\x04\x01\x04text\x00\x00",  # nothing at all
        half(["one", "two"]),
        document_of(bold),
        document_of(lambda made: made.__setitem__("map", pycrdt.Map({"a": 1}))),
        document_of(lambda made: made.__setitem__("text", pycrdt.Array([1]))),
        document_of(lambda made: made.__setitem__("other", pycrdt.Text("abc"))),
    ],
)
def test_what_is_no_state_of_a_text_is_refused(state: bytes) -> None:
    with pytest.raises(BrokenText, match="it is not the state of a text"):
        read(state)
    with pytest.raises(ValidationError, match=r"notes\.body_state: it is not"):
        NOTES.encode(Note("1", body_state=state))


def far_apart(count: int) -> bytes:
    """Each piece says that it was put between the beginning and a character far behind: Yjs compares it with all in between."""
    return state_of_pieces([(7, [piece("a" * count)]), (8, [piece("b", right=(7, at)) for at in range(count - 2)])])


def beside_two(count: int) -> bytes:
    return state_of_pieces(
        [(1, [piece("xy")]), *((name, [piece("a", left=(1, 0), right=(1, 1))]) for name in range(2, count))]
    )


def many_gaps(count: int) -> bytes:
    return state_of_pieces([(7, [piece("a" * 2 * count)])], {7: [(2 * at, 1) for at in range(count)]})


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (far_apart(TEXT_PIECES_MAX // 3), "too often in one place"),
        (beside_two(TEXT_PIECES_MAX + 10), "in more than 1,500 places"),
        (many_gaps(TEXT_PIECES_MAX), "in more than 1,500 places"),
        (state_of_pieces([(7, [piece("a")] * 3 * TEXT_PIECES_MAX)]), "in more than 1,500 places"),
    ],
)
def test_what_would_hold_whoever_reads_it_is_refused_before_pycrdt_sees_it(state: bytes, why: str) -> None:
    """4,000 pieces of the first kind hold pycrdt for more than a second."""
    assert len(state) < TEXT_STATE_BYTES_MAX
    with pytest.raises(ClosedText, match=f"{why}.*; go on in a new row"):
        read(state)


TANGLED = state_of_pieces(
    [
        (3, [piece("fb", left=(1, 0)), piece("fb", right=(3, 1))]),
        (5, [piece("e", left=(1, 0)), piece("d", left=(3, 3))]),
        (1, [piece("a")]),
    ]
)
"""It says of its second piece that it was put between the beginning and what had something before it: once edited it is read otherwise."""


def test_an_edit_that_would_be_read_as_another_one_is_refused() -> None:
    assert read(TANGLED) == "affbdbe"
    with pytest.raises(ClosedText, match="depends on who reads it; go on in a new row"):
        rewritten(TANGLED, "affZZbdbe")


def test_two_states_that_only_together_have_too_much_are_not_joined() -> None:
    one, other = (
        state_of_pieces([(first + n, [piece("a")]) for n in range(TEXT_PIECES_MAX - 600)]) for first in (1, 5_000)
    )
    assert len(read(one)) == len(read(other)) == TEXT_PIECES_MAX - 600
    with pytest.raises(ClosedText, match="go on in a new row"):
        joined(one, other)
    with pytest.raises(BrokenText, match="calls something else by the same name"):
        joined(state_of_pieces([(7, [piece("ab")])]), state_of_pieces([(7, [piece("abc")])]))


@pytest.mark.parametrize("seed", range(3))
def test_a_text_is_read_as_pycrdt_reads_it(seed: int) -> None:
    """Several write in documents of pycrdt, exchange them now and then, and each document is read as the one that made it says."""
    random = Random(seed)
    for _ in range(8):
        documents = [
            pycrdt.Doc(client_id=random.choice([at + 1, 2**53 - 1 - at, random.randrange(2**53)])) for at in range(3)
        ]
        texts = [each.get("text", type=pycrdt.Text) for each in documents]
        for _ in range(random.randint(5, 40)):
            writer, reader = random.randrange(3), random.randrange(3)
            shown, text = str(texts[writer]), texts[writer]
            first = random.choice([0, len(shown), random.randint(0, len(shown))])
            last = first + random.choice([0, 0, 1, 4])
            begin = len(shown[:first].encode())
            with documents[writer].transaction():
                if shown[first:last]:
                    del text[begin : begin + len(shown[first:last].encode())]
                text.insert(begin, "".join(random.choices(LETTERS, k=random.randint(1, 4))))
            if random.random() < 0.3:
                documents[reader].apply_update(documents[writer].get_update())
        for each, text in zip(documents, texts, strict=True):
            assert text_of_state(each.get_update()) == str(text)


@settings(max_examples=100)
@given(st.text("ab 😀", max_size=60), st.text("ab 😀", max_size=60))
def test_edits_make_one_text_into_the_other(before: str, after: str) -> None:
    made, at = "", 0
    for start, end, new in text_edits(before, after):
        assert at <= start <= end
        made += before[at:start] + new
        at = end
    assert made + before[at:] == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x " + "a " * 998 + " y", "z " + "a b " * 499 + " w"),
        ("x " + ("a" * 400 + "b ") * 100 + " y", "z " + ("b" + "a" * 400 + " ") * 100 + " w"),
        ("x" + " a" * 20_000, "y" + "a " * 20_000),
    ],
)
def test_texts_that_have_too_little_in_common_are_not_compared_for_long(before: str, after: str) -> None:
    """To look for the best way from one to the other took six seconds, or never ended."""
    assert len([*text_edits(before, after)]) == 1


def test_damaged_bytes_are_refused_or_are_another_text_and_take_no_memory() -> None:
    random = Random(73)
    base, _ = joined(rewritten(document("héllo", None), "hé, llo 😀"), document("two", None))
    for number in range(3_000):
        if number % 3:
            damaged = bytearray(base[: random.randint(1, len(base))])
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        else:
            damaged = bytearray(random.randbytes(random.randint(0, 40)))
        try:
            text = read(bytes(damaged))
        except BrokenText:
            continue
        assert len(text) <= len(damaged), "it holds what the bytes hold"
        assert read(rewritten(bytes(damaged), text + "!")) == text + "!"


def test_a_text_has_a_bound_and_says_what_to_do() -> None:
    with pytest.raises(ValidationError, match="go on in a new row"):
        NOTES.encode(Note("1", body_state=document("x" * TEXT_STATE_BYTES_MAX, None)))
    with pytest.raises(ValidationError, match="at most 49,152 do: divide it among rows"):
        NOTES.encode_changes({"body": "é" * (TEXT_BYTES_MAX // 2 + 1)})
    assert document("fresh", b"broken") == document("fresh", None), "what another tool has put there counts as nothing"


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ("count", "declare str"),
        ("shout", "declare str"),
        ("id", "it is the id"),
    ],
)
def test_declarations_that_do_not_fit_are_refused(field: str, why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        StoreSpec("notes", Note, merge={field: "text"})


def test_a_text_needs_a_field_for_its_state_and_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Bare:
        id: str
        body: str = ""

    with pytest.raises(SchemaError, match=r"declare body_state: bytes \| None = None"):
        StoreSpec("notes", Bare, merge={"body": "text"})
    monkeypatch.setitem(sys.modules, "pycrdt", None)
    with pytest.raises(SchemaError, match=r"pycrdt, which is not installed: pip install 'atoma-runtime\[text\]'"):
        StoreSpec("notes", Note, merge={"body": "text"})


def test_nobody_writes_the_state() -> None:
    with pytest.raises(ValidationError, match="set by the store itself"):
        NOTES.encode_changes({"body_state": b"\x00\x00"})
