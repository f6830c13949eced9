"""The committed modules say what ``sync.proto`` says; ``transports/generate_stubs.py --check`` compares every byte."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from atoma_transports.grpc.standard import FILES, message_class
from atoma_transports.grpc.v1 import sync_pb2

PROTO = Path(sync_pb2.__file__ or "").with_name("sync.proto")
FIELD = re.compile(r"^\s+(?:(optional|repeated) )?([\w.]+|map<string, string>) (\w+) = (\d+);", re.MULTILINE)
METHOD = re.compile(r"rpc (\w+)\((\w+)\) returns \((stream )?(\w+)\);")
PLAIN = {
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
    FieldDescriptorProto.TYPE_BOOL: "bool",
}

Field = tuple[str, str, str, int]


def written() -> dict[str, list[Field]]:
    """The messages and their fields, read from the text."""
    text = PROTO.read_text(encoding="utf-8")
    bodies = re.findall(r"^message (\w+) \{(.*?)\}$", text, re.MULTILINE | re.DOTALL)
    return {
        name: [(label, kind, field, int(number)) for label, kind, field, number in FIELD.findall(body)]
        for name, body in bodies
    }


def committed() -> FileDescriptorProto:
    file = FileDescriptorProto()
    sync_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def label_of(field: FieldDescriptorProto, kind: str) -> str:
    if kind.startswith("map"):
        return ""
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return "repeated"
    return "optional" if field.proto3_optional else ""


def kind_of(field: FieldDescriptorProto) -> str:
    kind = PLAIN.get(field.type) or field.type_name.rpartition(".")[2]
    return "map<string, string>" if kind.endswith("Entry") else kind


def test_every_message_is_as_it_is_written() -> None:
    messages = {
        message.name: [
            (label_of(field, kind_of(field)), kind_of(field), field.name, field.number) for field in message.field
        ]
        for message in committed().message_type
    }
    assert messages == written()
    assert sum(map(len, messages.values())) > 100


def test_every_method_is_as_it_is_written() -> None:
    found = [
        (
            method.name,
            method.input_type.rpartition(".")[2],
            method.server_streaming,
            method.output_type.rpartition(".")[2],
        )
        for method in committed().service[0].method
    ]
    text = PROTO.read_text(encoding="utf-8")
    assert found == [(name, request, bool(stream), reply) for name, request, stream, reply in METHOD.findall(text)]


def test_the_modules_go_with_every_protobuf_that_the_project_allows() -> None:
    """Generated code refuses a runtime that is older than its generator."""
    text = Path(sync_pb2.__file__ or "").read_text(encoding="utf-8")
    made_by = re.search(r"Protobuf Python Version: ([\d.]+)", text)
    pyproject = next(parent for parent in PROTO.parents if (parent / "pyproject.toml").is_file()) / "pyproject.toml"
    allowed = re.search(r'"protobuf>=([\d.]+)', pyproject.read_text(encoding="utf-8"))
    assert made_by is not None
    assert allowed is not None
    oldest = tuple(map(int, allowed[1].split(".")))
    assert tuple(map(int, made_by[1].split(".")))[: len(oldest)] <= oldest


def test_readers_in_other_languages_are_told_every_type() -> None:
    fields = [field for file in FILES for message in file.message_type for field in message.field]
    assert [field.name for field in fields if not field.HasField("type") or not field.HasField("label")] == []
    kinds = {field.type for field in fields if field.type_name.endswith("ServingStatus")}
    assert kinds == {FieldDescriptorProto.TYPE_ENUM}


def test_other_packages_may_bring_the_standard_files_too() -> None:
    """A process holds one file per message: ours are in a pool of their own, and whoever wants can load another copy."""
    assert "list_services" in message_class("grpc.reflection.v1.ServerReflectionRequest").DESCRIPTOR.fields_by_name
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("grpc.reflection.v1.ServerReflectionRequest")


DECLARED = re.compile(r"^(?:service|message|  rpc|  (?:(?:optional|repeated) )?(?:map<.*?>|[\w.]+) \w+ = \d+)\b")


def test_everything_in_the_file_says_what_it_is() -> None:
    lines = PROTO.read_text(encoding="utf-8").splitlines()
    declared = [number for number, line in enumerate(lines) if DECLARED.match(line)]
    assert len(declared) > 200
    assert [lines[number] for number in declared if not lines[number - 1].lstrip().startswith("//")] == []
    assert max(map(len, lines)) <= 150


def test_buf_finds_nothing(tmp_path: Path) -> None:
    """With its standard rules; the file says which it does not keep, and why."""
    buf = shutil.which("buf", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if buf is None:
        pytest.skip("needs buf: pip install buf-bin")
    folder = tmp_path / "atoma" / "sync" / "v1"
    folder.mkdir(parents=True)
    shutil.copy(PROTO, folder)
    config = {"version": "v2", "lint": {"use": ["STANDARD", "COMMENTS"]}}
    found = subprocess.run(
        [buf, "lint", "--config", json.dumps(config)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, ""), found.stderr
