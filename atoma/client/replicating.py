"""The stores of a client that replicate: which they are, what their write-backs need, and what only these may be asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from atoma.errors import ConfigurationError
from atoma.plugins import Plugin, Replicating
from atoma.ports.execution import WritebackPart
from atoma.schema import Schema


def stores_that_replicate(plugins: Sequence[Plugin]) -> frozenset[str]:
    """Names of the stores that one of ``plugins`` replicates."""
    names: set[str] = set()
    for plugin in plugins:
        names.update(plugin.synced_stores if isinstance(plugin, Replicating) else ())
    return frozenset(names)


def replication_part(ids: Callable[[], str]) -> Callable[[], WritebackPart]:
    """What gives the part of replication: the modules of sync are loaded when there is something for it."""

    @cache
    def part() -> WritebackPart:
        from atoma.sync.writebacks import ReplicationPart

        return ReplicationPart(ids)

    return part


def check_set_by_hub(schema: Schema, synced: frozenset[str]) -> None:
    """Refuse what only a hub does for a store that is not among the ``synced`` ones.

    Raises:
        ConfigurationError: Its rows would never be purged, or a field of it never be set.
    """
    for store in schema.stores.values():
        if store.purge_after is not None and store.name not in synced:
            raise ConfigurationError(
                f"store {store.name!r}: soft_delete={store.purge_after!r} says when a hub purges, and this client does not sync it: "
                f"add Sync([{store.name}]), or declare soft_delete=True and call purge()"
            )
        if store.sets.at_hub and store.name not in synced:
            raise ConfigurationError(
                f"store {store.name!r} has fields that the hub sets ({', '.join(sorted(store.sets.at_hub))}), and this client "
                f'does not sync it: add Sync([{store.name}]), or let the device set them (by="device")'
            )
