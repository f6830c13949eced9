"""The client for code without a loop: the same names as in ``atoma``, without ``await``.

The client runs in a Trio loop in a thread of its own; a call waits for it there. Ctrl-C, and the end of the time that
:func:`fail_after` gives, cancel what is waited for, and the thread goes on when that has ended. A client may be used from any
number of threads, also in a notebook. One that nobody closes is closed when nobody has it any more, or when the program ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import atoma
from atoma.bindings.blocking.client import Client
from atoma.bindings.blocking.host import Lifetime, fail_after, open_portal
from atoma.bindings.blocking.results import ItemResult, ManyResult, WriteHandle
from atoma.bindings.blocking.store import Store
from atoma.bindings.blocking.sync import ConflictInbox, LostRows, Quarantine, SyncControl
from atoma.bindings.blocking.transaction import Transaction, TransactionStore

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
    "fail_after",
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

    Leaving the block ends the calls under way with :class:`~atoma.errors.ClosedError`, closes the client and ends its thread.

    Args:
        schema: The declared stores.
        plugins: What the client is made of.
        policy: The policy of stores and calls that name none.
        environment: Clock, ids, randomness, executor, all used in the client's loop.

    Raises:
        ConfigurationError: What was passed is no schema; or, as ``WrongLoop``, a Trio loop runs here.
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
