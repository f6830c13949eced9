"""The rows of one decision: they change operation by operation, and come out as one net change each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoma.contracts.codec import encode
from atoma.contracts.values import RowImage
from atoma.hub.admission import Refusal
from atoma.hub.rules import RowTest
from atoma.ports.hub import RowChange, RowFact, RowKey
from atoma.schema.spec import StoreSpec

ABSENT = RowFact()


class Workspace:
    """Rows as a decision found them and as it leaves them.

    Args:
        rows: Facts of every row that the decision may touch.
        stores: Stores of the rows that it may write, by name.
        may: Tells which rows whoever writes may see, where rules say so. No other row is shown to a decision, and neither
            the row that is replaced nor the one that replaces it may be another one.
    """

    __slots__ = ("_facts", "_may", "_now", "_stores")

    def __init__(
        self, rows: Mapping[RowKey, RowFact], stores: Mapping[str, StoreSpec[Any]], may: RowTest | None = None
    ) -> None:
        self._facts = rows
        self._stores = stores
        self._may = may
        self._now: dict[RowKey, RowImage | None] = {}

    def fact(self, key: RowKey) -> RowFact:
        """The row as it was found."""
        return self._facts.get(key, ABSENT)

    def image(self, key: RowKey) -> RowImage | None:
        """The row as it is now.

        Raises:
            Refusal: ``DENIED``.
        """
        if key in self._now:
            return self._now[key]
        image = self.fact(key).image
        self._check(key, image)
        return image

    def put(self, key: RowKey, image: RowImage | None) -> None:
        """Make ``image`` the row.

        Raises:
            Refusal: ``DENIED``.
        """
        for each in (self.fact(key).image, image):
            self._check(key, each)
        self._now[key] = image

    def _check(self, key: RowKey, image: RowImage | None) -> None:
        store, id = key
        if self._may is not None and image is not None and not self._may(store, id, image):
            raise Refusal("DENIED", f"you may not write {store}/{id[:80]}: a rule about its rows says no")

    def pack(self, store: str, image: RowImage) -> RowImage:
        """``image`` of a row that the decision may write, as it is sent and kept as bytes."""
        return self._stores[store].pack(image)

    def changes(self, max_bytes: int) -> list[RowChange]:
        """What differs from how it was found, in the order of the first touch.

        Raises:
            Refusal: ``TOO_LARGE``: the images do not fit into a page.
        """
        changes: list[RowChange] = []
        size = 0
        for (store, id), post in self._now.items():
            pre = self.fact((store, id)).image
            if pre == post:
                continue
            body = None if post is None else encode(self.pack(store, post))
            size += len(body or b"")
            fields = None
            if pre is not None and post is not None:
                fields = tuple(name for name in post if name not in pre or pre[name] != post[name])
            changes.append(RowChange(store, id, pre, post, body, fields))
        if size > max_bytes:
            raise Refusal(
                "TOO_LARGE", f"the rows of this mutation have {size} bytes together, the limit is {max_bytes}"
            )
        return changes
