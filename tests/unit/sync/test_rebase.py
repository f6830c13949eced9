"""Rebase is replay: checked against an independent model that keeps each column's history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atoma.contracts.codec import encode
from atoma.contracts.mutations import MutationBody, Op, OpKind
from atoma.contracts.values import RowImage, Scalar
from atoma.mutations import ops_by_row, rebase
from atoma.schema import Schema, StoreSpec


@dataclass
class Card:
    id: str


SCHEMA = Schema(StoreSpec("cards", Card))
COLUMNS: tuple[str, ...] = ("a", "b", "c")
VALUES: st.SearchStrategy[Scalar] = st.one_of(
    st.none(), st.integers(-3, 3), st.text("xy", max_size=2), st.binary(max_size=2)
)
FULL: st.SearchStrategy[RowImage] = st.tuples(VALUES, VALUES, VALUES).map(
    lambda values: dict(zip(COLUMNS, values, strict=True))
)
PART: st.SearchStrategy[RowImage] = st.dictionaries(st.sampled_from(COLUMNS), VALUES, min_size=1)


@st.composite
def operations(draw: st.DrawFn) -> Op:
    kinds: list[OpKind] = ["create", "patch", "replace", "upsert", "delete"]
    kind = draw(st.sampled_from(kinds))
    if kind == "delete":
        return Op("delete", "cards", "1")
    if kind == "patch":
        return Op("patch", "cards", "1", draw(PART))
    if kind == "upsert":
        values = draw(PART)
        full = draw(FULL)
        return Op("upsert", "cards", "1", values, {name: full[name] for name in COLUMNS if name not in values})
    return Op(kind, "cards", "1", draw(FULL))


def model(base: dict[str, Any] | None, ops: list[Op]) -> dict[str, Any] | None:
    """Where the row came to life last, then per column the last value written since."""
    alive = base is not None
    born = -1
    for number, op in enumerate(ops):
        if op.kind == "delete":
            alive = False
        elif op.kind in ("create", "replace") or (op.kind == "upsert" and not alive):
            alive, born = True, number
    if not alive:
        return None
    image: dict[str, Any] = {}
    for name in COLUMNS:
        written = [op for op in ops[max(born, 0) :] if name in op.values]
        if written:
            image[name] = written[-1].values[name]
        elif born >= 0 and ops[born].kind == "upsert":
            image[name] = ops[born].defaults[name]
        else:
            assert base is not None
            image[name] = base[name]
    return image


@given(base=st.one_of(st.none(), FULL), ops=st.lists(operations(), max_size=8))
def test_visible_is_base_with_pending_replayed(base: dict[str, Any] | None, ops: list[Op]) -> None:
    before = None if base is None else dict(base)
    assert rebase(base, ops) == model(base, ops)
    assert base == before, "the base is left as it is"


@given(base=st.one_of(st.none(), FULL), ops=st.lists(operations(), max_size=8), cut=st.integers(0, 8))
def test_settling_a_prefix_changes_nothing_visible(base: dict[str, Any] | None, ops: list[Op], cut: int) -> None:
    settled = rebase(base, ops[:cut])
    assert rebase(settled, ops[cut:]) == rebase(base, ops)


def test_operations_are_found_by_row_in_order() -> None:
    ops = (
        Op("create", "cards", "1", {"a": 1}),
        Op("patch", "lanes", "1", {"a": 2}),
        Op("patch", "cards", "1", {"a": 3}, after_mid=4),
    )
    body = encode(MutationBody(5, "k", "main", 7, 1, 0, ops))
    assert ops_by_row(body, SCHEMA) == {("cards", "1"): [ops[0], ops[2]], ("lanes", "1"): [ops[1]]}
