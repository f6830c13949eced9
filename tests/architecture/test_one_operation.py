"""An operation is one struct wherever it is one: a field that it is given arrives on every path, and none has to know it."""

from __future__ import annotations

import ast
import base64
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TypeGuard

import msgspec
import pytest

from atoma.contracts.codec import decode
from atoma.contracts.execution import WriteItemResult, restated
from atoma.contracts.mutations import MutationBody, Op
from tests.copies import copy_part
from tests.golden.messages import BODY, load
from tests.golden.old import FOLDER

STRUCT = "atoma/contracts/mutations.py"
LAST = "    base_version: int | None = None\n"
Sources = dict[Path, ast.Module]
PROGRAM = Path(__file__).with_name("seven_paths.py")

ARRIVES = {
    "local write": ["in a transaction", "inserted"],
    "transaction": ["in a transaction"],
    "overlay": ["laid"],
    "outbox": ["inserted"],
    "wire: MessagePack": ["sent"],
    "wire: JSON": ["sent"],
    "wire: gRPC": ["sent"],
    "hub: push": ["in a transaction", "inserted"],
    "hub: direct": ["sent"],
    "page": ["laid"],
}
"""Path → the notes of the operations that take it."""

LISTED = "Op(op.kind, op.store, op.id, op.values, op.defaults, op.after_mid, op.cas, op.scope, op.base_version)"
PLANTED = {
    # where an operation is made anew by listing its fields: the module, what stands there, and the paths that lose the field
    "transaction": ("atoma/runtime/transaction.py", "replace(op, scope=effect.scope)", {"local write", "transaction", "hub: push"}),
    "queue": ("atoma/mutations/deciding.py", 'replace(op, scope="", after_mid=after_mid)', {"outbox", "transaction", "hub: push"}),
    "arrival": (
        "transports/atoma_transports/protocol/operations.py",
        "replace(op, values=image(op.values), defaults=image(op.defaults), edits=edits)",
        {"wire: MessagePack", "wire: JSON", "wire: gRPC", "hub: direct"},
    ),
    "admission": (
        "atoma/hub/admission.py",
        "structs.replace(op, id=id, values=values, defaults=defaults, scope=scope, edits=edits)",
        {"hub: push", "hub: direct"},
    ),
}  # fmt: skip


@pytest.fixture
def grown(root: Path, tmp_path: Path) -> Path:
    """A copy of the tree in which an operation has one field more."""
    for part in ("atoma", "stores", "transports"):
        copy_part(root / part, tmp_path / part)
    edit(tmp_path / STRUCT, LAST, f'{LAST}    note: str = ""\n')
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def run(tree: Path, *command: str) -> str:
    paths = os.pathsep.join(str(tree / part) for part in ("", "stores", "transports"))
    ended = subprocess.run(
        [sys.executable, *command], cwd=tree, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def paths_of(tree: Path) -> dict[str, list[str]]:
    seen: dict[str, list[str]] = json.loads(run(tree, str(PROGRAM)).splitlines()[-1])
    return seen


def test_a_new_field_of_an_operation_arrives_on_every_path(grown: Path) -> None:
    assert paths_of(grown) == ARRIVES


@pytest.mark.parametrize("place", PLANTED)
def test_where_the_fields_of_an_operation_are_listed_a_new_one_is_lost(grown: Path, place: str) -> None:
    module, changed, lost = PLANTED[place]
    edit(grown / module, changed, LISTED)
    seen = paths_of(grown)
    assert {path for path in ARRIVES if seen.get(path) != ARRIVES[path]} == lost


def made_anew(tree: ast.AST) -> list[str]:
    """Where a function makes a value of a type that it was given one of, by listing fields of that one."""
    found: list[str] = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        given = {one.arg: names_in(one.annotation) for one in ast.walk(function.args) if isinstance(one, ast.arg)}
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                values = [*call.args, *(keyword.value for keyword in call.keywords)]
                of = Counter(
                    value.value.id for value in values if is_field(value) and isinstance(value.value, ast.Name)
                )
                again = [name for name, count in of.items() if count > 1 and call.func.id in given.get(name, ())]
                found += [f"{function.name}: {call.func.id} of {name}" for name in again]
    return found


def is_field(value: ast.expr) -> TypeGuard[ast.Attribute]:
    return isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name)


def names_in(annotation: ast.expr | None) -> set[str]:
    return set() if annotation is None else {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}


def test_no_value_is_made_anew_by_listing_its_fields(product: Sources) -> None:
    found = {str(path): made_anew(tree) for path, tree in product.items()}
    assert {path: places for path, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "planted", ["Op(op.kind, op.store, 'id')", "Op(kind=op.kind, store=op.store)", "[Op('delete', op.store, op.id)]"]
)
def test_a_planted_list_of_fields_is_seen(planted: str) -> None:
    assert made_anew(ast.parse(f"def again(op: Op | None) -> None:\n    return {planted}")) == ["again: Op of op"]


READS = """
import base64, sys
from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import MutationBody
from msgspec.structs import replace
body = decode(base64.b64decode(sys.argv[1]), MutationBody)
assert {op.note for op in body.ops} == {""}
print(base64.b64encode(encode(replace(body, ops=tuple(replace(op, note="new") for op in body.ops)))).decode())
"""


def test_a_body_without_the_field_is_read_and_one_with_it_by_who_does_not_know_it(grown: Path) -> None:
    golden = load((FOLDER / "messages.json").read_text(encoding="utf-8"))["msgpack"]["MutationBody"]
    with_note = base64.b64decode(run(grown, "-c", READS, base64.b64encode(golden).decode()))
    assert with_note != golden
    assert decode(with_note, MutationBody) == decode(golden, MutationBody) == BODY


def test_a_field_that_is_not_given_takes_no_room() -> None:
    assert Op.__struct_config__.omit_defaults
    required = [item.name for item in msgspec.structs.fields(Op) if item.required]
    assert required == ["kind", "store", "id"]


FORMS = frozenset({"WriteItemResult", "RemoteOpResult", "_KeptItem", "_Item"})
"""What became of an entry: as it is returned, as it travels, and as a hub and a device keep it."""


def restated_by_hand(tree: ast.AST) -> list[str]:
    """Where one form of a result is made by listing fields of another."""
    found: list[str] = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in FORMS:
            values = [*call.args, *(keyword.value for keyword in call.keywords)]
            of = Counter(value.value.id for value in values if is_field(value) and isinstance(value.value, ast.Name))
            found += [f"{call.func.id} of {name}" for name, count in of.items() if count > 2]
    return found


def test_no_form_of_a_result_lists_the_fields_of_another(product: Sources) -> None:
    found = {str(path): restated_by_hand(tree) for path, tree in product.items()}
    assert {path: places for path, places in found.items() if places} == {}


@pytest.mark.parametrize("planted", ["WriteItemResult(k.id, k.ok, k.changed)", "_Item(ok=k.ok, lsn=k.lsn, mid=k.mid)"])
def test_a_planted_list_of_a_results_fields_is_seen(planted: str) -> None:
    assert restated_by_hand(ast.parse(planted)) == [f"{planted.partition('(')[0]} of k"]


def test_a_result_is_restated_with_the_fields_that_both_forms_have() -> None:
    class Kept(msgspec.Struct, array_like=True):
        version: int
        ok: bool
        place: int = 0
        id: str = ""

    result = WriteItemResult("a", True, True, 7, {"title": "tea"})
    kept = restated(result, Kept, place=3)
    assert kept == Kept(7, True, 3, "a")
    assert restated(kept, WriteItemResult, row=None) == WriteItemResult("a", True, version=7)
