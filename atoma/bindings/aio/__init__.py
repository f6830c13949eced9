"""The client for asyncio: the same names as in ``atoma``, awaited under asyncio.

The client runs in a Trio loop in a thread of its own, and no call blocks the loop that awaits it. Cancelling a task cancels
what it waits for there; the task goes on when that has ended, so that nothing is still under way behind its back.
A client may be used from every asyncio loop of the process. When the loop that opened it is closed, so is the client.
"""

from __future__ import annotations

from collections.abc import Sequence

import atoma
from atoma.bindings.aio.client import Client
from atoma.bindings.aio.host import Lifetime, open_portal
from atoma.bindings.aio.results import ItemResult, ManyResult, WriteHandle
from atoma.bindings.aio.store import Store
from atoma.bindings.aio.sync import ConflictInbox, LostRows, Quarantine, SyncControl
from atoma.bindings.aio.transaction import Transaction, TransactionStore

__all__ = [
    "Client",
    "ConflictInbox",
    "ItemResult",
    "Lifetime",
    "LostRows",
    "ManyResult",
    "Quarantine",
    "Store",
    "SyncControl",
    "Transaction",
    "TransactionStore",
    "WriteHandle",
    "open_client",
]


def open_client(
    schema: atoma.Schema,
    *,
    plugins: Sequence[atoma.Plugin],
    policy: str | None = None,
    environment: atoma.Environment | None = None,
) -> Lifetime[Client]:
    """Open a client made of exactly these plugins, for the length of a block; see :func:`atoma.open_client`.

    Leaving the block ends the calls under way with :class:`~atoma.errors.ClosedError`, closes the client and ends its thread;
    a cancelled task does the same, and goes on when it is done.

    Args:
        schema: The declared stores.
        plugins: What the client is made of.
        policy: The policy of stores and calls that name none.
        environment: Clock, ids, randomness, executor, all used in the client's loop.

    Raises:
        ConfigurationError: What was passed is no schema; or, as ``WrongLoop``, no asyncio loop runs here.
        TopologyError: The parts do not fit together.
        PluginError: A plugin is malformed, or two claim one name.
        StoreError: The database cannot be opened.
    """
    opened = open_portal(
        "the client",
        lambda: atoma.open_client(schema, plugins=plugins, policy=policy, environment=environment),
        Client,
    )
    return Lifetime("open_client", opened)
