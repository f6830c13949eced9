"""Requests and results of the execution ports: these fields, frozen, and a status that agrees with the items."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import (
    ExecutionMeta,
    OperationContext,
    QueryRequest,
    QueryResult,
    WriteItemResult,
    WriteOptions,
    WriteRequest,
    WriteResult,
    item_key,
    status_of,
)
from atoma.contracts.mutations import Op
from atoma.errors import ProtocolError
from atoma.testing.queries import rows_of

CONTEXT = OperationContext("trace", "direct-local")
ENTRY = Op("create", "notes", "1", {"text": "x"}, scope="main")
VALUES: dict[type[msgspec.Struct], tuple[msgspec.Struct, tuple[str, ...]]] = {
    QueryRequest: (QueryRequest(rows_of("notes"), CONTEXT), ("query", "context")),
    QueryResult: (QueryResult(()), ("rows", "tuples", "meta")),
    ExecutionMeta: (ExecutionMeta(), ("source", "path", "trace_id", "cursor", "commit", "policy")),
    WriteRequest: (WriteRequest((ENTRY,), WriteOptions(), CONTEXT, "key"), ("entries", "options", "context", "idem")),
    Op: (ENTRY, ("kind", "store", "id", "values", "defaults", "after_mid", "cas", "scope", "base_version")),
    WriteOptions: (WriteOptions(), ("confirm", "atomic", "durability", "reads")),
    WriteItemResult: (WriteItemResult("1", True), ("id", "ok", "changed", "version", "row", "error", "decided")),
    WriteResult: (WriteResult("confirmed", ()), ("status", "items", "meta", "receipts")),
    OperationContext: (CONTEXT, ("trace_id", "policy", "deadline")),
}


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_contract_has_these_fields_and_cannot_be_changed(kind: type[msgspec.Struct]) -> None:
    value, fields = VALUES[kind]
    assert kind.__struct_fields__[: len(fields)] == fields  # a contract grows at its end
    for name in fields:
        with pytest.raises(AttributeError):
            setattr(value, name, getattr(value, name))


def test_a_source_is_one_of_three() -> None:
    for source in ("local", "remote", "mixed"):
        assert decode(encode({"source": source}), ExecutionMeta).source == source
    with pytest.raises(ProtocolError):
        decode(encode({"source": "somewhere"}), ExecutionMeta)


@given(st.lists(st.sampled_from(["written", "refused", "shown"]), min_size=1, max_size=6))
def test_the_status_agrees_with_the_items(ends: list[str]) -> None:
    items = tuple(
        WriteItemResult(str(number), end != "refused", decided=end != "shown") for number, end in enumerate(ends)
    )
    wanted = {("written",): "confirmed", ("refused",): "rejected", ("refused", "written"): "partial"}
    assert status_of(items) == wanted.get(tuple(sorted(set(ends))), "undecided")


def test_every_mutation_of_a_unit_has_a_key_of_its_own() -> None:
    assert {item_key("k", index, atomic=False, size=3) for index in range(3)} == {"k:0", "k:1", "k:2"}
    assert {item_key("k", index, atomic=True, size=3) for index in range(3)} == {"k"}
    assert item_key("k", 0, atomic=False, size=1) == "k"
