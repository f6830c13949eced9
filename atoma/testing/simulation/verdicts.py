"""The conflict rules once more, in plain Python and from their description, to judge every decision of the hub.

Nothing here imports the hub: a mistake would have to be made twice, in two different forms, to go unnoticed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from atoma.testing.simulation.facts import Decided, Image, Key, Name, Offered, Operation, Written, replayed
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.stores import RULE_OF, RULES, UNIQUE_COLUMN, sees


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a row.

    Attributes:
        seq: When.
        author: Who made it.
        columns: Which columns it touched, None for all of them.
        offered: Whether it brought back, or took back, a row of a lost history: nobody has written it.
        witness: Of which lost history, and from where in it.
    """

    seq: int
    author: bytes
    columns: frozenset[str] | None
    offered: bool = False
    witness: tuple[bytes, int] = (b"", 0)


@dataclass(slots=True)
class RowStory:
    """Everything that ever happened to a row of one scope.

    Attributes:
        image: The row now, None when it is not there.
        last: Its image before it was deleted.
        changes: In order.
    """

    image: Image | None = None
    last: Image | None = None
    changes: list[Change] = field(default_factory=list[Change])

    def copy(self) -> RowStory:
        """The same, to go on from twice."""
        return RowStory(self.image, self.last, list(self.changes))


@dataclass(frozen=True, slots=True)
class Memory:
    """The reach of a scope's log and tombstones: what lies at or below is forgotten."""

    floor: int = 0
    log: int = 0
    tombstones: int = 0


class Refused(Exception):
    """The rules refuse the mutation."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Judge:
    """A judge that decides every mutation in the hub's order and says what the hub has to have said.

    Args:
        decided: Verdicts by client and number, as the hub has recorded them.
    """

    def __init__(self, decided: Mapping[tuple[bytes, int], Decided]) -> None:
        self._decided = decided
        self._stories: dict[tuple[str, Key], RowStory] = {}
        self._heads: dict[str, int] = {}
        self._effects: dict[Name, int] = {}

    def copy(self, decided: Mapping[tuple[bytes, int], Decided]) -> Judge:
        """The same, to go on from twice."""
        other = Judge(decided)
        other._stories = {key: story.copy() for key, story in self._stories.items()}
        other._heads = dict(self._heads)
        other._effects = dict(self._effects)
        return other

    def decide(
        self,
        written: Written,
        memory: Memory,
        known: int,
        before: tuple[bytes, int] | None,
        *,
        doubtful: bool,
        brought: Collection[Key] = (),
        user: str = "",
    ) -> tuple[Decided, dict[Key, Image | None]]:
        """The verdict on ``written`` and the rows it leaves changed; the judge's own rows move on.

        Args:
            written: The mutation.
            memory: How far back the log reaches.
            known: How much of this history its user had seen.
            before: The number under which the hub remembers to have decided it, by another name.
            doubtful: Whether it may have been decided long ago, and nobody can tell.
            user: Who wrote it.
            brought: Rows that offers have brought back since: what was added to one in a lost history may be in it.

        Raises:
            Violation: It has an effect for the second time.
        """
        head = self._heads.get(written.scope, 0)
        if before is not None:
            again = self._decided[before]
            return Decided(again.status, again.scope, again.seq, written.digest, again.code), {}
        try:
            after, merged = self._carry_out(written, memory, known, doubtful=doubtful, brought=brought, user=user)
            self._check_unique(written.scope, after)
        except Refused as refused:
            return Decided("rejected", written.scope, 0, written.digest, refused.code), {}
        status = "merged" if merged else "applied"
        changed = {key: image for key, image in after.items() if image != self._story(written.scope, key).image}
        if changed:
            head += 1
            self._note_effect(written, head)
        for key, image in changed.items():
            self._move(written.scope, key, image, Change(head, written.client, None), memory)
        self._heads[written.scope] = head
        return Decided(status, written.scope, head, written.digest), changed

    def _note_effect(self, written: Written, seq: int) -> None:
        """I24: a mutation has at most one effect in one history, under whichever name it comes."""
        if (first := self._effects.get(written.first_name)) is not None:
            client, mid, _ = written.first_name
            what = f"mutation {mid} of {client.hex()[:6]} took effect as {written.scope}@{first}, and again as {seq}"
            raise Violation("I24", "hub", what)
        self._effects[written.first_name] = seq

    def _story(self, scope: str, key: Key) -> RowStory:
        return self._stories.setdefault((scope, key), RowStory())

    def brought(self, written: Written, known: int) -> set[Key]:
        """The rows of ``written`` that an offer has changed behind ``known``."""
        stories = {key: self._story(written.scope, key) for key in written.keys}
        return {key for key, story in stories.items() if any(c.offered and c.seq > known for c in story.changes)}

    def follow(self, scope: str, changed: Mapping[Key, Image | None], change: Change, memory: Memory) -> None:
        """Take in what an offer has changed; what the hub makes of offers is judged by what they must never do."""
        for key, image in changed.items():
            self._move(scope, key, image, change, memory)
        self._heads[scope] = change.seq

    def check_offer(self, scope: str, key: Key, offer: Offered, fork: int, user: str) -> None:
        """I22, I23: an offer changes no row that was written since the histories parted, nor one that a better witness brought.

        What ``user``, who offers it, may not know of has never been: the row of somebody else that is gone.

        Raises:
            Violation: It did; or, I18, the row is there and not for them.
        """
        try:
            story = _shown(self._story(scope, key), key, user)
        except Refused:
            raise Violation("I18", f"hub {scope}", f"{key} is not for {user}, and is changed by their offer") from None
        for change in story.changes:
            epoch, position = change.witness
            if change.seq > fork and not change.offered:
                found = f"{key} was written as {change.seq}, behind {fork}, and is changed by an offer"
                raise Violation("I23", f"hub {scope}", found)
            if epoch == offer.epoch and position > offer.seq:
                found = f"{key} was brought back from {position}, and is changed by an offer from {offer.seq}"
                raise Violation("I22", f"hub {scope}", found)

    def _move(self, scope: str, key: Key, image: Image | None, change: Change, memory: Memory) -> None:
        story = self._story(scope, key)
        if story.image is None and story.changes and story.changes[-1].seq <= memory.tombstones:
            story.changes.clear()  # nothing tells of the row's earlier life
        before = story.image
        if before is not None and image is not None:
            columns = frozenset(name for name in image if before.get(name) != image[name])
            change = replace(change, columns=columns)
        story.changes.append(change)
        if image is None:
            story.last = before
        story.image = image

    def _carry_out(
        self, written: Written, memory: Memory, known: int, *, doubtful: bool, brought: Collection[Key], user: str
    ) -> tuple[dict[Key, Image | None], bool]:
        for op in written.ops:
            earlier = self._decided.get((written.client, op.after_mid)) if op.after_mid else None
            if earlier is not None and earlier.rejected:
                raise Refused("DEPENDENCY_REJECTED")
        after: dict[Key, Image | None] = {}
        merged = False
        for op in written.ops:
            story = _shown(self._story(written.scope, op.key), op.key, user)
            current = after.get(op.key, story.image)
            case = _Case(op, story, current, written.client, known, memory)
            in_doubt = doubtful or (op.counts and op.key in brought)
            image, met = case.doubtful() if in_doubt else case.verdict()
            if image is not None and not sees(user, op.key, image):
                raise Refused("DENIED")
            after[op.key] = image
            merged = merged or met
        return after, merged

    def _check_unique(self, scope: str, after: dict[Key, Image | None]) -> None:
        """No two rows of a scope may have one value in a unique column, once the whole mutation is done."""
        for (store, id), image in after.items():
            column = UNIQUE_COLUMN.get(store)
            if column is None or image is None or image[column] is None:
                continue
            for (other_scope, key), story in self._stories.items():
                other = after.get(key, story.image)
                if other_scope != scope or key[0] != store or key[1] == id or other is None:
                    continue
                if other[column] == image[column] and image != self._story(scope, (store, id)).image:
                    raise Refused("CONSTRAINT")


def _shown(story: RowStory, key: Key, user: str) -> RowStory:
    """What ``user`` may know of a row: one that is gone, and that they never saw, has never been.

    Raises:
        Refused: It is there, and they may not see it.
    """
    if story.image is not None and not sees(user, key, story.image):
        raise Refused("DENIED")
    gone = story.image is None and (story.last is None or not sees(user, key, story.last))
    return RowStory() if gone and key[0] in RULES else story


class _Case:
    """One operation on one row."""

    def __init__(
        self, op: Operation, story: RowStory, current: Image | None, author: bytes, known: int, memory: Memory
    ) -> None:
        self.op = op
        self.story = story
        self.current = current
        self.rule = RULE_OF[op.key[0]]
        last = story.changes[-1] if story.changes else None
        absent = story.image is None
        # a deletion that is forgotten leaves no trace of the row at all
        unknown = absent and last is not None and last.seq <= memory.tombstones
        if unknown:
            last = None
        stale = known < memory.floor
        by_others = last is not None and last.author != author and last.seq > known
        since = max(known, memory.log)
        others = [change for change in story.changes if change.author != author and not unknown]
        theirs = [change for change in others if change.seq > since]
        unseen = any(change.seq > known for change in others)
        self.all_columns = any(change.columns is None for change in theirs) or (stale and unseen)
        self.columns: set[str] = set()
        for change in theirs:
            self.columns |= change.columns or set()
        self.deleted_by_others = absent and by_others
        self.forgotten = absent and stale and last is None
        self.last = None if unknown or last is None else story.last

    @property
    def touched(self) -> bool:
        """Whether somebody else changed the row since the user looked."""
        return self.deleted_by_others or self.all_columns or bool(self.columns)

    @property
    def forgiving(self) -> bool:
        """Whether what arrives last wins."""
        return self.rule in ("lww", "client_wins") and not self.op.cas

    def doubtful(self) -> tuple[Image | None, bool]:
        """The row afterwards, if the operation may have been carried out long ago and nobody can tell.

        Raises:
            Refused: Somebody has touched the row since, or may have, and it is not as the operation would leave it.
        """
        in_vain = self.op.kind == "patch" and self.current is None  # a change of a row that is gone is not done
        if replayed(self.current, [self.op], self.op.key) == self.current and not in_vain:
            return self.current, False
        if not (self.op.counts or self.touched or self.forgotten):
            try:
                return self.verdict()
            except Refused:
                pass
        raise Refused("UNKNOWN_OUTCOME")

    def verdict(self) -> tuple[Image | None, bool]:
        """The row afterwards, and whether it met somebody else's change."""
        match self.op.kind, self.current:
            case "create", current:
                if current not in (None, self.op.values):
                    raise Refused("ALREADY_EXISTS")
                return dict(self.op.values), False
            case "delete", None:
                return None, False
            case "delete", _:
                if self.touched and not self.forgiving:
                    raise Refused("CONFLICT")
                return None, self.touched
            case "patch", None:
                return self._revive()
            case _, None:
                if self.deleted_by_others and not self.forgiving:
                    raise Refused("CONFLICT")
                return {**self.op.defaults, **self.op.values}, self.deleted_by_others
            case _, current:
                return self._merge(current)

    def _revive(self) -> tuple[Image, bool]:
        if not (self.deleted_by_others or self.forgotten):
            raise Refused("NOT_FOUND")
        if self.rule != "client_wins" or self.op.cas or self.last is None:
            raise Refused("CONFLICT")
        return self.op.over(self.last), True

    def _merge(self, current: Image) -> tuple[Image, bool]:
        values = self.op.values
        if self.op.cas and self.touched:
            raise Refused("CONFLICT")
        if self.story.image is None:
            return self.op.over(current), False
        mine = {name for name, value in values.items() if self.story.image.get(name) != value}
        met = mine if self.all_columns else mine & self.columns
        if not met:
            return self.op.over(current), False
        if self.rule == "manual":
            raise Refused("CONFLICT")
        if self.rule == "server_wins":
            if met == mine and not self.op.edits:
                raise Refused("CONFLICT")
            return {**current, **{name: value for name, value in values.items() if name not in met}}, True
        return self.op.over(current), True
