"""What is generated: policies as plain data, scripts of nodes, and a schedule of requests that may overlap.

Nothing here knows the kernel: a graph is a description, which one side builds and the other side interprets.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

INF = math.inf


@dataclass(frozen=True)
class Graph:
    """One combinator; which of the settings count depends on ``kind``."""

    kind: str
    children: tuple[Graph, ...] = ()
    ids: tuple[str, ...] = ()
    answer: str | int = ""
    count: int = 0
    queue: int = 0
    seconds: float = 0.0
    cooldown: float = 0.0
    backoff: tuple[float, float, float] = (0.0, 1.0, 0.0)
    flag: bool = False

    def __str__(self) -> str:
        said = [*self.ids, *(f"{name}={value}" for name, value in self._settings() if value)]
        return f"{self.kind}({', '.join([*map(str, self.children), *said])})"

    def _settings(self) -> list[tuple[str, object]]:
        backoff = self.backoff if self.kind == "retry" else ""
        return [
            ("answer", self.answer), ("count", self.count), ("queue", self.queue), ("seconds", self.seconds),
            ("cooldown", self.cooldown), ("backoff", backoff), ("flag", self.flag),
        ]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """What a node does at one call: how long it takes, what comes of it, and the verdicts that follow a write.

    A verdict is ``(seconds after the answer, kind)``; None where there is nothing to wait for.
    """

    seconds: float
    kind: str
    verdicts: tuple[tuple[float, str] | None, ...] = ()


@dataclass(frozen=True)
class Script:
    """The calls of a node, in turn and from the beginning again; where it says it is, and where its answers say."""

    calls: tuple[Call, ...]
    remote: bool | None = None
    says: str = "local"

    def at(self, request: int, call: int) -> Call:
        """The behaviour at a call, counted for each request from its own number on."""
        return self.calls[(request + call) % len(self.calls)]


@dataclass(frozen=True)
class Ask:
    """One request: when it comes, how long its caller lets it run, and when its caller changes its mind.

    ``variant`` is which of two queries is asked, or which way a write is confirmed.
    """

    at: float
    write: bool
    store: str
    variant: int
    entries: int
    staged: bool
    budget: float
    cancel: float

    @property
    def strict(self) -> bool:
        """Whether a write wants the verdict."""
        return self.variant == 0


@dataclass(frozen=True)
class Tell:
    """Rows of a store changed outside."""

    at: float
    store: str


@dataclass(frozen=True)
class World:
    """One example."""

    query: Graph
    write: Graph
    scripts: dict[str, Script]
    schedule: tuple[Ask | Tell, ...]
    synced: bool
    detached: int
    cached: int
    close: float
    heard: bool

    @property
    def asks(self) -> list[Ask]:
        """The requests, by number."""
        return [one for one in self.schedule if isinstance(one, Ask)]

    def __str__(self) -> str:
        scripts = "\n".join(f"  {name}: {script}" for name, script in self.scripts.items())
        schedule = "\n".join(f"  {one}" for one in self.schedule)
        limits = (
            f"synced={self.synced} detached={self.detached} cached={self.cached} close={self.close} heard={self.heard}"
        )
        return f"query {self.query}\nwrite {self.write}\n{limits}\n{scripts}\n{schedule}"


FAILURES = ["notsent", "broken", "busy", "later", "unavailable", "slow", "conflict", "denied", "full", "foreign", "lie"]
QUERY_KINDS = [*FAILURES, "hang", "notsent", "broken"]
WRITE_KINDS = [*FAILURES, "hang", "refused", "partial", "wrong-count", "wrong-status", "notsent", "broken", "broken"]
STAGED_KINDS = ["full", "busy", "foreign", "refused", "partial", "conflict"]
AROUND = ["timeout", "retry", "breaker", "bulkhead"]
BESIDE = ["parallel", "race", "hedge"]
STAGES = ("local-write", "outbox", "extra")


def uneven() -> Iterator[float]:
    """Offsets whose sums do not meet, so that two things happen at once only where that is meant."""
    number = 2
    while True:
        if all(number % divisor for divisor in range(2, int(math.sqrt(number)) + 1)):
            yield math.sqrt(number) % 1 / 7
        number += 1


@dataclass
class Drawing:
    """A world on its way."""

    random: random.Random
    write: bool = False
    queued: bool = False
    leaves: int = 0
    scripts: dict[str, Script] = field(default_factory=dict)
    shared: list[Graph] = field(default_factory=list)
    offsets: Iterator[float] = field(default_factory=uneven)

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def seconds(self, most: int = 6) -> float:
        return self.random.randint(0, most) + next(self.offsets) + 0.01

    def script(self, kinds: list[str], tied: float | None) -> Script:
        calls: list[Call] = []
        for _ in range(self.random.randint(1, 3)):
            kind = "ok" if self.chance(50) else self.random.choice(kinds)
            verdicts: list[tuple[float, str] | None] = []
            if self.write and self.chance(40):
                for _ in range(2):
                    said = self.random.choice(["accepted", "accepted", "rejected", "broken", "hang", ""])
                    verdicts.append((self.seconds(), said) if said else None)
            calls.append(Call(self.seconds() if tied is None else tied, kind, tuple(verdicts)))
        remote = self.random.choice([True, True, False, None])
        return Script(tuple(calls), remote, self.random.choice(["local", "remote", "mixed"]))

    def leaf(self, tied: float | None = None) -> Graph:
        self.leaves += 1
        if self.write and (self.queued or self.chance(15)):
            ids = STAGES[: self.random.choice([2, 2, 3])] if self.queued else STAGES[: self.random.randint(1, 3)]
            self.scripts.setdefault("+".join(ids), self.script(STAGED_KINDS, None))
            return Graph("node" if len(ids) == 1 and self.chance(50) else "atomic", ids=ids)
        if self.chance(3) and not self.write:
            return Graph("refuse", ids=("closed",))
        name = f"{'w' if self.write else 'q'}{self.leaves}"
        self.scripts[name] = self.script(WRITE_KINDS if self.write else QUERY_KINDS, tied)
        return Graph("node", ids=(name,))

    def graph(self, depth: int, kind: str = "") -> Graph:
        if (depth == 0 and not kind) or self.leaves > 6:
            return self.leaf()
        if self.shared and not kind and self.chance(12):
            return self.random.choice(self.shared)
        own = ["verdict"] if self.write else ["merge", "cache", "cache"]
        kinds = ["sequence", "sequence", "fallback", "fallback", "synced", *AROUND, *AROUND, *BESIDE, *own]
        kind = kind or self.random.choice(kinds)
        if kind in (*AROUND, "verdict", "cache"):
            return self.around(kind, depth)
        if kind == "synced":
            return self.synced(depth)
        count = self.random.choice([1, 2, 2, 2, 3, 3])
        if kind == "sequence":
            return Graph(kind, (self.graph(depth - 1), *(self.later(depth - 1) for _ in range(count))))
        if kind in (*BESIDE, "merge"):
            tied = self.seconds() if self.chance(30) else None
            several = tuple(self.graph(depth - 1) if tied is None else self.leaf(tied) for _ in range(count))
        else:
            several = tuple(self.graph(depth - 1) for _ in range(count))
        if kind == "parallel":
            return Graph(kind, several, answer=self.random.choice(["first", "all", *range(1, count + 1)]))
        seconds = self.seconds() if kind == "hedge" else 0.0
        return Graph(kind, several, seconds=seconds, flag=kind == "merge" and self.chance(50))

    def later(self, depth: int) -> Graph:
        return Graph("detach", (self.graph(depth),)) if self.chance(45) else self.graph(depth)

    def synced(self, depth: int) -> Graph:
        was, self.queued = self.queued, self.write
        first = self.graph(depth - 1)
        self.queued = was
        closed = self.write and self.chance(20)
        return Graph("synced", (first, Graph("refuse", ids=("closed",)) if closed else self.graph(depth - 1)))

    def around(self, kind: str, depth: int) -> Graph:
        inner = (self.graph(depth - 1),)
        pick = self.random.randint
        if kind in ("timeout", "cache"):
            return Graph(kind, inner, seconds=self.seconds() * (3 if kind == "cache" else 1), flag=self.chance(30))
        if kind == "retry":
            first = next(self.offsets) + 0.05
            return Graph(kind, inner, count=pick(1, 4), backoff=(first, 2.0, first * pick(1, 5)))
        if kind == "verdict":
            return Graph(kind, inner)
        if kind == "breaker":
            made = Graph(kind, inner, count=pick(1, 3), seconds=self.seconds() * 4, cooldown=self.seconds() + 1)
        else:
            made = Graph(kind, inner, count=pick(1, 2), queue=pick(0, 2))
            taken = {(one.count, one.queue) for one in below(made) if one.kind == kind}
            while (made.count, made.queue) in taken:  # a bulkhead in itself is refused
                made = replace(made, count=made.count + 1)
        if not contains(inner[0], "cache"):
            self.shared.append(made)
        return made

    def schedule(self, writes: int, theme: str) -> tuple[Ask | Tell, ...]:
        now, made = 0.0, list[Ask | Tell]()
        gap = self.random.choice([1, 4, 12])
        for _ in range(self.random.randint(1, 9 if theme else 6)):
            now += self.seconds(gap)
            store = self.random.choice(["things", "things", "notes"])
            if made and self.chance(8):
                made.append(Tell(now, store))
                continue
            budget = self.seconds(20) if self.chance(40) else INF
            cancel = self.seconds(12) if self.chance(20) else 300.0 + next(self.offsets)
            write = self.chance(writes)
            made.append(
                Ask(now, write, store, self.random.randint(0, 1), self.random.choice([1, 2, 2]),
                    self.chance(60 if theme == "sequence" else 20), budget, cancel)
            )  # fmt: skip
        return tuple(made)


def below(graph: Graph) -> Iterator[Graph]:
    """Every graph inside ``graph``."""
    for child in graph.children:
        yield child
        yield from below(child)


def contains(graph: Graph, kind: str) -> bool:
    """Whether the graph has a combinator of that kind."""
    return graph.kind == kind or any(contains(child, kind) for child in graph.children)


def draw_world(source: random.Random) -> World:
    """A world that is a function of ``source``."""
    drawing = Drawing(source)
    theme = source.choice(["", "", "retry", "timeout", "breaker", "bulkhead", "cache", "verdict", "sequence"])
    writes = source.choice([0, 15, 50, 100]) if theme not in ("cache", "verdict") else 100 if theme == "verdict" else 40
    depth = source.choice([1, 2, 2, 3])
    query = drawing.graph(depth if writes < 100 else 0, theme if writes < 100 else "")
    synced = drawing.chance(35)
    drawing.write, drawing.leaves, drawing.shared = True, 0, []
    drawing.queued = synced and drawing.chance(40)
    inside = "sequence" if theme == "cache" else theme if writes > 40 else ""
    write = drawing.graph(source.choice([1, 2, 2, 3]) if writes > 15 else 0, inside)
    schedule = drawing.schedule(writes, theme)
    close = schedule[-1].at + drawing.seconds() + 330.0
    detached, cached = source.choice([1, 1, 2, 64]), source.choice([1, 2, 256])
    heard = drawing.chance(85)  # nobody may listen: then nothing is told, and all else is the same
    return World(query, write, drawing.scripts, schedule, synced, detached, cached, close, heard)


__all__ = ["INF", "STAGES", "Ask", "Call", "Graph", "Script", "Tell", "World", "contains", "draw_world"]
