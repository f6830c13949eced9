"""Which policy a request runs under: names only; the kernel holds what they mean."""

from __future__ import annotations

from collections.abc import Mapping

from atoma.errors import UnknownPolicy


class PolicyNames:
    """A map of stores to policy names; it executes nothing.

    Args:
        default: The client's policy.
        per_store: Store name → policy name, for stores whose policy is not the client's.
        known: Every policy that can be selected.

    Attributes:
        own: Store name → policy, of those whose policy can be selected: what :meth:`resolve` says when none is asked for.
    """

    __slots__ = ("_per_store", "default", "known", "own")

    def __init__(self, default: str, per_store: Mapping[str, str], known: frozenset[str]) -> None:
        self.default = default
        self._per_store = dict(per_store)
        self.known = known
        self.own: Mapping[str, str] = {store: name for store, name in per_store.items() if name in known}

    def resolve(self, store: str, asked: str | None) -> str:
        """The policy for a request on ``store``: the one asked for, else the store's, else the client's.

        Raises:
            UnknownPolicy: Nobody registered a policy of that name.
        """
        name = asked or self._per_store.get(store, self.default)
        if name not in self.known:
            raise UnknownPolicy(name, f"it is not registered; known are: {', '.join(sorted(self.known)) or 'none'}")
        return name
