"""The semantic core: stores, flows, transactions, handles. Depends on ports only."""

from __future__ import annotations

from atoma.runtime.results import ItemResult, ManyResult, Page, WriteHandle
from atoma.runtime.runtime import Runtime
from atoma.runtime.store import Store
from atoma.runtime.transaction import Transaction, TransactionStore

__all__ = ["ItemResult", "ManyResult", "Page", "Runtime", "Store", "Transaction", "TransactionStore", "WriteHandle"]
