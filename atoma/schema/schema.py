"""All stores of an application, with a version and the steps that led to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from atoma.contracts.checks import is_a
from atoma.errors import SchemaError, UnknownStore
from atoma.schema.migrations import MigrationSteps, Past, pasts_of
from atoma.schema.relations import AnyRelation
from atoma.schema.shapes import Shape
from atoma.schema.spec import StoreSpec

_NO_STEPS: MigrationSteps = MappingProxyType({})


class Schema:
    """All stores of an application, with a version.

    Args:
        stores: The stores; names must differ.
        version: Raised by the application when it changes a store.
        steps: For each version whose changes do not explain themselves, the steps to it from the version before; see
            :mod:`atoma.schema.migrations`.
        relations: Relations between the stores; they are checked when a client or a hub is opened.
        shapes: Named parts of scopes that a hub serves and devices may ask for; checked at the same time.

    Attributes:
        packs: Whether any store packs anything otherwise than it is stored.
        made_up: Whether it was read from a file, whose columns and their forms it takes as they are.
        templates: What was found out about its queries, by their shape; for whoever checks them.
        forms: The forms of each store's columns; of a schema that was read from a file, as far as that tells them.

    Raises:
        SchemaError: Something is not a store, two stores share a name, the version is not a positive number, or a
            step cannot have led to the stores.
    """

    __slots__ = (
        "_pasts",
        "forms",
        "made_up",
        "packs",
        "relations",
        "shapes",
        "steps",
        "stores",
        "templates",
        "version",
    )

    def __init__(
        self,
        *stores: StoreSpec[Any],
        version: int = 1,
        steps: MigrationSteps = _NO_STEPS,
        relations: Sequence[AnyRelation] = (),
        shapes: Sequence[Shape] = (),
    ) -> None:
        if not is_a(version, int) or version < 1:
            raise SchemaError(f"schema version must be 1 or more, not {version!r}")
        self.version = version
        self.made_up = False
        self.relations = tuple(relations)
        self.shapes = tuple(shapes)
        self.stores: dict[str, StoreSpec[Any]] = {}
        self.templates: dict[object, object] = {}
        for store in stores:
            if not is_a(store, StoreSpec):
                raise SchemaError(f"Schema() takes stores, Schema(StoreSpec(…), …), not {store!r}")
            if store.name.lower() in {name.lower() for name in self.stores}:
                raise SchemaError(f"two stores are named {store.name!r}")
            self.stores[store.name] = store
        if not self.stores:
            raise SchemaError("a schema needs at least one store")
        self.packs = any(store.packs for store in stores)
        self.forms = {store.name: store.forms for store in stores}
        self.steps = steps
        self._pasts = pasts_of(self.stores, version, steps)
        names = {name.lower() for name in self.stores}
        for store in stores:
            if store.readable.lower() in names:
                raise SchemaError(
                    f"store {store.name!r} has decimals with a scale, so that {store.readable!r} is the view that shows them: "
                    "rename the other store"
                )

    def store(self, name: str) -> StoreSpec[Any]:
        """The store of that name.

        Raises:
            UnknownStore: It is not declared.
        """
        found = self.stores.get(name)
        if found is None:
            raise UnknownStore(name, tuple(self.stores))
        return found

    def at_hub(self) -> Schema:
        """The stores as a hub has them; itself where the two are one.

        The relations, which are between the stores of devices, stay there.

        Raises:
            SchemaError: A step converts a field that a hub cannot read.
        """
        if not any(store.wired for store in self.stores.values()):
            return self
        stores = [store.at_hub() for store in self.stores.values()]
        return Schema(*stores, version=self.version, steps=self.steps, shapes=self.shapes)

    def past(self, version: int) -> Mapping[str, Past]:
        """The stores as ``version`` had them, by name: only those that steps have changed since; 0 is today's version."""
        later = [to for to in self._pasts if to > (version or self.version)]
        return self._pasts[min(later)] if later else {}

    def forms_at(self, version: int) -> dict[str, dict[str, str]]:
        """The forms of each store's columns as ``version`` had them."""
        return self.forms | {name: past.forms for name, past in self.past(version).items()}

    def origin(self, store: str, column: str) -> str:
        """What tells a column of today apart from one of another version that is called the same and holds other values.

        It is the name that the column came with, as far as the steps tell, and behind it the last version whose steps
        made other values of what it held: ``"rank@3"``. One that was only renamed is what it was.
        """
        name = column
        for to in sorted(self._pasts, reverse=True):
            past = self._pasts[to].get(store)
            then = () if past is None else past.names_then((column,))
            if past is not None and any(map(past.converts, then)):
                return f"{name}@{to}"
            name = then[0] if then else name
        return name

    @property
    def hash(self) -> bytes:
        """16 bytes that are equal for equal declarations."""
        text = "\n".join(sorted(store.signature() for store in self.stores.values()))
        return hashlib.sha256(text.encode()).digest()[:16]
