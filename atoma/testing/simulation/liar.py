"""Somebody who offers rows that they have invented, as if from a history that the hub has lost."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import trio

from atoma.contracts.codec import encode
from atoma.contracts.mutations import MutationBody, Op, Recovers
from atoma.contracts.sync import Cursor, Mutation, PullRequest, PushRequest
from atoma.contracts.values import Scalar
from atoma.errors import AtomaError, RemoteError
from atoma.hub import Hub
from atoma.ports.service import Principal
from atoma.testing.simulation.facts import read_body
from atoma.testing.simulation.history import History
from atoma.testing.simulation.lineage import BEGINNING
from atoma.testing.simulation.stores import SCHEMA, SCOPES

LIAR = "liar"
BEYOND = 2**62
"""A position that no device has ever been at: whose offer is believed from there has the last word for ever."""


class Liar:
    """A principal of the hub who may write, and has a true proof of some place, perhaps.

    Args:
        history: Told of every lie, which the hub may not take.
        dice: Decides which.
    """

    def __init__(self, history: History, dice: random.Random) -> None:
        self._history = history
        self._dice = dice

    async def go_on(self, each_s: float, hub: Callable[[], Hub | None], calm: Callable[[], bool]) -> None:
        """Lie to the hub, where it runs, every ``each_s`` seconds on average until the run is calm."""
        while not calm():
            await trio.sleep(self._dice.expovariate(1 / each_s))
            if (running := hub()) is not None and not calm():
                try:
                    await self.lie(running)
                except AtomaError:
                    pass  # the hub crashed meanwhile

    async def lie(self, hub: Hub) -> None:
        """Push one offer that is none.

        Raises:
            AtomaError: The hub does not answer.
        """
        dice, scope = self._dice, self._dice.choice(SCOPES)
        service, client = hub.service(Principal(LIAR)), dice.randbytes(16)
        at, proof = Cursor(), dice.randbytes(16)
        try:
            page = await service.pull(PullRequest(scope, at, client, 0, 2**20, 1000))
            at, proof = page.end, page.proof
        except RemoteError:
            pass  # the log is gone: then the proof is invented as well
        true = Recovers(at.epoch or self._history.epoch, at.seq, at.hash, proof)
        told = [
            Recovers(true.epoch, BEYOND, true.hash, true.proof),
            Recovers(true.epoch, true.seq + 1, dice.randbytes(16), true.proof),
            Recovers(true.epoch, BEYOND, true.hash, b""),
            Recovers(true.epoch, BEYOND, true.hash, true.proof, last=True),
            Recovers(true.epoch, true.seq, true.hash, dice.randbytes(16)),
        ]
        offer = dice.choice(told)
        body = encode(
            MutationBody(1, client.hex(), scope, 0, SCHEMA.version, 0, self._rows(scope, offer), recovers=offer)
        )
        digest = hashlib.sha256(body).digest()
        written = read_body(client, digest, body, BEGINNING)
        self._history.lies.add(written.name)
        self._history.written[written.name] = written
        self._history.users[client] = LIAR
        self._history.counts["lies told"] += 1
        await service.push(PushRequest(client, 0, (Mutation(1, body, digest),), b""))

    def _rows(self, scope: str, offer: Recovers) -> tuple[Op, ...]:
        if offer.last:
            return ()
        names = [store.name for store in SCHEMA.stores.values() if store.fixed_scope == scope]
        store, id = self._dice.choice(names), f"r{self._dice.randrange(3)}"
        if self._dice.random() < 0.3:
            return (Op("delete", store, id),)
        values: dict[str, Scalar] = {"token": "a lie", "left": "x", "right": LIAR, "count": 9, "place": None}
        return (Op("replace", store, id, values),)
