"""The client in a plain script: no loop, no ``await``; a thread that follows a live query, and a time limit.

python examples/bindings/without_a_loop.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from atoma import Schema, StoreSpec, new_id, select
from atoma.bindings.blocking import Store, fail_after, open_client
from atoma.ports import apply_batch
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    id: str = field(default_factory=new_id)
    sensor: str
    value: float


READINGS = StoreSpec("readings", Reading)
SCHEMA = Schema(READINGS)
BY_VALUE = select(READINGS).order_by("-value")


def follow(readings: Store[Reading], until: int, begun: threading.Event) -> None:
    """Print the highest value, again after every change, until there are so many."""
    rows: tuple[Reading, ...] = ()
    with readings.live(BY_VALUE) as batches:
        for batch in batches:
            rows = apply_batch(rows, batch)
            if rows:
                print(f"{len(rows)} reading(s), the highest from the {rows[0].sensor}")
            begun.set()
            if len(rows) >= until:
                return


def main(folder: Path) -> None:
    with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(folder / "readings.db"))]) as client:
        readings = client.store(READINGS)
        readings.insert(Reading(sensor="roof", value=31))
        begun = threading.Event()
        follower = threading.Thread(target=follow, args=(readings, 3, begun))
        follower.start()
        begun.wait()
        with client.transaction() as tx:
            tx.store(READINGS).insert(Reading(sensor="oven", value=90))
            tx.store(READINGS).insert(Reading(sensor="cellar", value=12))
        follower.join()
        try:
            with fail_after(0.05), readings.live() as batches:
                for _ in batches:
                    pass
        except TimeoutError:
            print("nothing more")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            main(Path(place))
