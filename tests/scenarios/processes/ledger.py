"""A ledger that several programs write to: whatever they do, its amounts add up to the same.

``python -m tests.scenarios.processes.ledger FILE TURNS NAME``: a program of this project that moves amounts.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass

import trio

from atoma.client import Client, open_client
from atoma.errors import ConflictError
from atoma.schema import Index, Schema, StoreSpec
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine

ACCOUNTS, EACH = 12, 100


@dataclass(frozen=True)
class Account:
    id: str
    place: int
    amount: int
    by: str = ""


LEDGER = StoreSpec("accounts", Account, indexes=[Index("place", unique=True), Index("amount")])
SCHEMA = Schema(LEDGER)


def open_ledger(path: str) -> AbstractAsyncContextManager[Client]:
    """The ledger in the file ``path``."""
    return open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(path))])


async def fill(client: Client) -> None:
    """Give every account the same."""
    await client.store(LEDGER).insert_many([Account(f"a{number:02}", number, EACH) for number in range(ACCOUNTS)])


def is_balanced(rows: Sequence[Account]) -> bool:
    """Whether ``rows`` are a state that the ledger has ever been in."""
    return len(rows) == ACCOUNTS and sum(row.amount for row in rows) == ACCOUNTS * EACH


async def move(client: Client, turns: int, name: str) -> None:
    """Move amounts between accounts, each time in one transaction, and once more where somebody was faster."""
    source = random.Random(name)
    while turns:
        with suppress(ConflictError):
            giver, taker = source.sample(range(ACCOUNTS), 2)
            await _move_one(client, giver, taker, name)
            turns -= 1


async def _move_one(client: Client, giver: int, taker: int, name: str) -> None:
    async with client.transaction() as tx:
        accounts = tx.store(LEDGER)
        one, other = await accounts.get(f"a{giver:02}"), await accounts.get(f"a{taker:02}")
        assert one is not None
        assert other is not None
        await accounts.update(one.id, amount=one.amount - 1, by=name)
        await accounts.update(other.id, amount=other.amount + 1, by=name)


def scripts(turns: int, seed: int) -> Iterator[str]:
    """SQL of a tool that knows nothing of this project: updates, upserts, and rows that take the place of others."""
    source = random.Random(seed)
    for _ in range(turns):
        giver, taker = source.sample(range(ACCOUNTS), 2)
        row = "SELECT id, place, amount{sign}1, 'raw', _ver, _seq, _scope FROM accounts WHERE place={place}"
        names = "accounts(id, place, amount, by, _ver, _seq, _scope)"
        # a row with the same place: what stood there is deleted, and no trigger hears it
        renamed = row.format(sign="+", place=taker).replace("SELECT id", f"SELECT 'a{taker:02}' || substr(id, 4)")
        yield (
            "BEGIN IMMEDIATE; "
            f"INSERT OR REPLACE INTO {names} {row.format(sign='-', place=giver)}; "
            f"INSERT OR REPLACE INTO {names} {renamed}; COMMIT;"
        )
        yield f"UPDATE accounts SET by=by || '.' WHERE place={giver};"


async def main(path: str, turns: int, name: str) -> None:
    """Move amounts in a program of its own."""
    async with open_ledger(path) as client:
        with trio.fail_after(60):
            await move(client, turns, name)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3])
