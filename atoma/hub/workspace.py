"""The rows of one decision: they change operation by operation, and come out as one net change each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoma.contracts.codec import encode
from atoma.contracts.sync import Limits
from atoma.contracts.values import RowImage, RowKey
from atoma.hub.admission import Refusal
from atoma.hub.lineage import next_transaction
from atoma.hub.rules import PrincipalView
from atoma.hub.setting import Stamps
from atoma.mutations import with_texts
from atoma.ports.hub import Facts, WritePlan, WrittenRow
from atoma.ports.hub_rows import DIRECT, RowFact
from atoma.schema.kinds import INT64_MAX
from atoma.schema.spec import StoreSpec

ABSENT = RowFact()
OF_HUB = Limits(mutation_bytes=INT64_MAX, page_bytes=INT64_MAX)
"""What the hub does of its own is of whatever size."""


class Workspace:
    """Rows as a decision found them and as it leaves them.

    Args:
        rows: Facts of every row that the decision may touch.
        stores: Stores of the rows that it may write, by name.
        view: What whoever writes sees, where rules say so. No other row is shown to a decision, and neither the row that
            is replaced nor the one that replaces it may be another one.
    """

    __slots__ = ("_facts", "_now", "_shown", "_stores", "_view")

    def __init__(
        self, rows: Mapping[RowKey, RowFact], stores: Mapping[str, StoreSpec[Any]], view: PrincipalView | None = None
    ) -> None:
        self._facts = rows
        self._stores = stores
        self._view = view
        self._shown: dict[RowKey, RowFact] = {}
        self._now: dict[RowKey, RowImage | None] = {}

    def fact(self, key: RowKey) -> RowFact:
        """The row as it was found; one that is gone, and was not to be seen, as if it had never been.

        Raises:
            Refusal: ``DENIED``: it is there, and is not to be seen.
        """
        if key not in self._shown:
            fact = self._facts.get(key, ABSENT)
            self._check(key, fact.image)
            if fact.image is None and self._view is not None and not self._view.sees(*key, fact.last):
                fact = ABSENT
            self._shown[key] = fact
        return self._shown[key]

    def is_part(self, key: RowKey) -> bool:
        """Whether whoever writes may see a part of the row's store only, so that what they do not name tells nothing."""
        return self._view is not None and self._view.is_part(key[0])

    def image(self, key: RowKey) -> RowImage | None:
        """The row as it is now.

        Raises:
            Refusal: ``DENIED``.
        """
        if key in self._now:
            return self._now[key]
        return self.fact(key).image

    def is_same(self, key: RowKey, image: RowImage | None) -> bool:
        """Whether the row was found as ``image``, but for what nobody writes."""
        return self._stores[key[0]].is_same(self.fact(key).image, image)

    def with_texts(self, key: RowKey, image: RowImage | None) -> RowImage | None:
        """``image``, which somebody brings back, with its texts joined with those that the row has."""
        store, here = self._stores[key[0]], self.fact(key).image
        if image is None or here is None or not store.merging.texts:
            return image
        return with_texts(store, image, here)

    def differs_in_texts(self, key: RowKey, image: RowImage | None) -> bool:
        """Whether the row was found as ``image``, but for texts that merge and what nobody writes."""
        store, here = self._stores[key[0]], self.fact(key).image
        texts = store.merging.texts | store.merging.states
        if image is None or here is None or not texts:
            return False
        return store.is_same({**here, **{name: image[name] for name in texts}}, image)

    @property
    def is_changed(self) -> bool:
        """Whether any row is another one than it was found, but for what nobody writes."""
        return any(not self.is_same(key, image) for key, image in self._now.items())

    def put(self, key: RowKey, image: RowImage | None) -> None:
        """Make ``image`` the row.

        Raises:
            Refusal: ``DENIED``.
        """
        self.fact(key)
        if image is not None and not self._stores[key[0]].sets.names:
            self._check(key, image)  # else once everything is set that a rule may look at
        self._now[key] = image

    def _check(self, key: RowKey, image: RowImage | None) -> None:
        store, id = key
        if self._view is not None and image is not None and not self._view.sees(store, id, image):
            raise Refusal("DENIED", f"you may not write {store}/{id[:80]}: a row rule forbids it")

    def set_fields(self, stamps: Stamps) -> None:
        """Give every row that has changed what is set in it; one that is as it was, but for that, has not.

        Raises:
            Refusal: ``DENIED``.
        """
        for (store, id), post in self._now.items():
            spec, pre = self._stores[store], self.fact((store, id)).image
            if post is not None and (spec.sets.names or spec.soft_delete):
                self._now[store, id] = pre if spec.is_same(pre, post) else stamps.on(spec, id, pre, post)
                self._check((store, id), self._now[store, id])

    def pack(self, store: str, image: RowImage) -> RowImage:
        """``image`` of a row that the decision may write, as it is sent and kept as bytes."""
        return self._stores[store].pack(image)

    def changes(self, limits: Limits) -> list[WrittenRow]:
        """What differs from how it was found, in the order of the first touch.

        Raises:
            Refusal: ``TOO_LARGE``: the images do not fit into a page, or one of them into a mutation, as it has to when a device
                brings the row back; one that is larger already may change, and not grow.
        """
        changes: list[WrittenRow] = []
        size = 0
        for (store, id), post in self._now.items():
            pre = self.fact((store, id)).image
            if pre == post:
                continue
            body = None if post is None else encode(self.pack(store, post))
            size += len(body or b"")
            if body is not None and len(body) > limits.mutation_bytes and len(body) > self._size(store, pre):
                raise Refusal(
                    "TOO_LARGE",
                    f"{store} row {id[:80]!r} would have {len(body)} bytes, the limit is {limits.mutation_bytes}",
                )
            fields = None
            if pre is not None and post is not None:
                fields = tuple(name for name in post if name not in pre or pre[name] != post[name])
            changes.append(WrittenRow(store, id, pre, post, body, fields))
        if size > limits.page_bytes:
            raise Refusal(
                "TOO_LARGE", f"the rows of this mutation have {size} bytes together, the limit is {limits.page_bytes}"
            )
        return changes

    def _size(self, store: str, image: RowImage | None) -> int:
        return 0 if image is None else len(encode(self.pack(store, image)))


def plan_of_hub(facts: Facts, work: Workspace) -> WritePlan:
    """The changes in ``work`` as a transaction of the hub's own, of whatever size; nothing to do where nothing differs."""
    changes = work.changes(OF_HUB)
    if not changes:
        return WritePlan()
    return WritePlan(transaction=next_transaction(facts.scope, changes, author=DIRECT, mid=0, principal=""))
