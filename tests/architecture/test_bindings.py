"""A binding has every public member of the client, under its own name and with its own signature."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import ModuleType

import pytest

import atoma
import atoma.client.inbox
import atoma.runtime
import atoma.runtime.quarantine
import atoma.sync.lost
from atoma.bindings import aio, blocking, generate

NATIVE: list[type] = [
    atoma.Client,
    atoma.Store,
    atoma.Transaction,
    atoma.runtime.TransactionStore,
    atoma.WriteHandle,
    atoma.ItemResult,
    atoma.ManyResult,
    atoma.SyncControl,
    atoma.client.inbox.ConflictInbox,
    atoma.runtime.quarantine.Quarantine,
    atoma.sync.lost.LostRows,
]
BLOCK = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
BINDINGS = [aio, blocking]


def members(native: type) -> set[str]:
    fields = set(getattr(native, "__dataclass_fields__", {}))
    fields |= {
        name for name, *_ in [*generate.FIELDS.get(native.__name__, []), *generate.CHOICES.get(native.__name__, [])]
    }
    fields |= {name for name in getattr(native, "__slots__", ()) if not name.startswith("_")}
    public = {name for name in dir(native) if not name.startswith("_")} | fields
    dunder = {name for name in (*BLOCK, "__iter__", "__len__") if name in vars(native)}
    return (public | dunder) - {name for owner, name in generate.LEFT_OUT if owner == native.__name__}


def of_binding(binding: ModuleType, native: type, name: str) -> object:
    name = BLOCK.get(name, name) if binding is blocking else name
    return inspect.getattr_static(getattr(binding, native.__name__), name)


def parameters(function: Callable[..., object]) -> list[tuple[str, object, object, str]]:
    said = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default, str(each.annotation).replace("'", '"')) for each in said]


def returned(value: object) -> str:
    function = value.fget if isinstance(value, property) else value
    assert callable(function)
    text = str(inspect.signature(function).return_annotation)
    text = re.sub(r"\bAwaitable\[(\w+)\]", r"\1", text)
    return re.sub(r"AsyncGenerator\[(.*)\]|Lifetime\[(?:Async)?(?:Iterator\[(.*)\]|(\w+))\]", r"\1\2\3", text)


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("native", NATIVE)
def test_every_member_is_there_with_its_signature(binding: ModuleType, native: type) -> None:
    for name in sorted(members(native)):
        there = of_binding(binding, native, name)
        own = inspect.getattr_static(native, name, None)
        if isinstance(own, property) or not inspect.isroutine(own):
            assert isinstance(there, property), f"{native.__name__}.{name}"
            if isinstance(own, property):
                assert returned(there) == returned(own), f"{native.__name__}.{name}"
        else:
            assert inspect.isfunction(there), f"{native.__name__}.{name}"
            assert parameters(there) == parameters(own), f"{native.__name__}.{name}"
            assert returned(there) == returned(own), f"{native.__name__}.{name}"


@pytest.mark.parametrize("native", NATIVE)
def test_what_is_awaited_is_awaited_under_asyncio_and_never_by_blocking_code(native: type) -> None:
    for name in sorted(members(native)):
        own = inspect.getattr_static(native, name, None)
        if inspect.iscoroutinefunction(own):
            assert inspect.iscoroutinefunction(of_binding(aio, native, name)), f"{native.__name__}.{name}"
        assert not inspect.iscoroutinefunction(of_binding(blocking, native, name)), f"{native.__name__}.{name}"


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_client_is_opened_as_the_native_one(binding: ModuleType) -> None:
    def named(function: Callable[..., object]) -> list[tuple[str, object, object, str]]:
        return [(*said[:3], said[3].replace("atoma.", "")) for said in parameters(function)]

    assert named(binding.open_client) == named(atoma.open_client)


def test_a_member_that_a_binding_lacks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def planted(self: object, id: str) -> None: ...

    monkeypatch.setattr(atoma.Store, "planted", planted, raising=False)
    with pytest.raises(AttributeError, match="planted"):
        test_every_member_is_there_with_its_signature(aio, atoma.Store)


def test_the_classes_are_as_they_are_made_now() -> None:
    stale = [str(path) for path, text in generate.texts().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run python -m atoma.bindings.generate"
