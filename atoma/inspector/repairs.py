"""Repairs for people: what was done and why, rows that nobody has decided about, and a hub's restores."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.codes import CODES
from atoma.contracts.replica import LostRow, RepairReport
from atoma.hub import Hub
from atoma.inspector.conflicts import plain, shown_values
from atoma.inspector.views import AbsentView, EpochView, FieldView, LostView, RepairView
from atoma.schema import Schema

SHORT = 8
ABSENT_SHOWN = 20

_REASONS = {
    "ask": "the operator leaves it to you",
    "forget": "the hub went back on purpose",
    "inbox": "this device keeps what the hub has lost",
    "drop": "this device lets go of what the hub has lost",
    "unproven": "nothing proves that the hub ever had it",
    "read-only": "you may only read here",
    "deletion": "you had seen it deleted; the operator has not allowed that yet",
    "adopted": "it is from the hub that this file belonged to",
    "superseded": "another device had seen more",
}
_WORDS = {
    "offer": "devices bring back what they have",
    "ask": "devices keep what they have until their users offer it",
    "forget": "devices bring nothing back",
}


def _title(cause: str) -> str:
    """What the table of codes says of a cause, as a title."""
    means = CODES[cause].means if cause in CODES else cause
    return means[:1].upper() + means[1:]


def repair_view(report: RepairReport) -> RepairView:
    """``report`` with the numbers that are not zero."""
    numbers = {
        "rows offered to the hub": report.offered,
        "rows kept in lost": report.lost,
        "writes settled": report.settled,
        "writes sent again": report.renumbered,
        "of them under a guard": report.doubtful,
        "verdicts withdrawn": len(report.withdrawn),
        "writes to the inbox": report.to_inbox,
    }
    return RepairView(
        cause=report.cause,
        title=_title(report.cause),
        why=report.why,
        at_ms=report.at_ms,
        forks={scope: str(seq) for scope, seq in report.forks.items()},
        numbers={name: number for name, number in numbers.items() if number},
        old=report.old_client_id.hex()[:SHORT],
        new=report.new_client_id.hex()[:SHORT],
    )


def lost_view(row: LostRow, schema: Schema) -> LostView:
    """``row`` with the fields in which the device and the hub differ, in the order of the columns."""
    mine, theirs = (
        None if image is None else shown_values(schema, row.store, image) for image in (row.image, row.theirs)
    )
    names = dict.fromkeys(name for image in (mine, theirs) for name in image or {})
    fields = [
        FieldView(
            name,
            None,
            plain(None if mine is None else mine.get(name)),
            plain(None if theirs is None else theirs.get(name)),
            True,
        )
        for name in names
        if mine is None or theirs is None or mine.get(name) != theirs.get(name)
    ]
    return LostView(
        number=row.number,
        store=row.store,
        id=row.id,
        reason=_REASONS.get(row.reason, row.reason),
        at_ms=row.at_ms,
        deleted_here=row.image is None,
        gone_there=row.theirs is None,
        resolution=row.resolution,
        fields=tuple(fields),
    )


async def epoch_views(hub: Hub) -> Sequence[EpochView]:
    """Every restore of the hub, the latest first, with the devices that have not called since."""
    found: list[EpochView] = []
    for ended in reversed(await hub.epochs()):
        absent = await hub.absent(ended.epoch)
        deletions = "allowed" if ended.deletes else "kept on the devices"
        found.append(
            EpochView(
                epoch=ended.epoch.hex()[:SHORT],
                ended_ms=ended.ended_ms,
                devices=_WORDS[ended.devices],
                deletions=None if ended.devices == "forget" else deletions,
                absent=len(absent),
                awaited=tuple(
                    AbsentView(client.client_id.hex()[:SHORT], client.principal, client.seen_ms)
                    for client in absent[:ABSENT_SHOWN]
                ),
            )
        )
    return found
