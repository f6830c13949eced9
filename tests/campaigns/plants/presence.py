"""Ways to break presence: who is seen, by whom, for how long, and at what cost (F82)."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

PRESENCE = "tests/scenarios/test_presence.py"
SHARING = "tests/unit/hub/test_presence_sharing.py"
ROOMS = "atoma.hub.presence:Rooms"
SEAT = "atoma.hub.presence:Seat"


def plant(where: str, old: str, new: str, why: str, *tests: str) -> Plant:
    """A row of this table."""
    return Plant("F82", where, old, new, why, tests or (PRESENCE,))


PLANTS: Final[tuple[Plant, ...]] = (
    plant(
        "atoma.hub.service:HubService.presence",
        "            self._check_readable(request.scope)\n            seat",
        "            seat",
        "whoever may not read a scope is there until something is told",
        "tests/scenarios/test_authorisation.py",
    ),
    plant(f"{SEAT}._ask", "self._check()", "pass", "a right that is gone is not noticed"),
    plant(f"{SEAT}._ask", "self.refused = True", "pass", "who has lost the right is shown for a lease"),
    plant(
        f"{ROOMS}._key",
        "hashlib.sha256(request.session + subject.encode())",
        "hashlib.sha256(request.session)",
        "whoever has the name of a session speaks for it",
    ),
    plant(
        f"{ROOMS}.leave",
        "        self._lease(room, member)",
        "        self._say(room, member, member.number, None)\n        self._lease(room, member)",
        "a short loss is seen by everybody",
    ),
    plant(f"{ROOMS}._expire", "if member.until > now:", "if True:", "a lost session is shown for ever"),
    plant(
        f"{ROOMS}.run",
        "await trio.sleep(self._deliver(room) / self.limits.deliveries_per_s)",
        "self._deliver(room)\n                await trio.lowlevel.checkpoint()",
        "a crowd keeps the loop busy",
    ),
    plant(
        f"{ROOMS}.appear",
        "request.number > member.number",
        "request.number >= 1",
        "what comes late takes the place of what came after it",
        SHARING,
        PRESENCE,
    ),
    plant(
        f"{ROOMS}.hear",
        "if number > member.number or (number == member.number and state is None):",
        "if True:",
        "a beat brings back who has left",
        SHARING,
    ),
    plant(
        "atoma.hub.presence_sharing:PresenceSharing._heard",
        "if not hmac.compare_digest(mac, self._mac(body)):",
        "if False:",
        "a role of the database invents who is here",
        SHARING,
    ),
    plant(
        "atoma.sync.presence_lane:PresenceLane._forget",
        "if not here.connected and here.answered == answered:",
        "if False:",
        "a device without a connection shows for ever who was here",
    ),
    plant(
        "atoma.sync.presence_lane:PresenceLane._hold",
        "self._lose(here, None, tasks)",
        "here.lost(None)",
        "a device that has paused shows for ever who was here",
    ),
    plant(
        "atoma.sync.presence_lane:PresenceLane._be_present",
        "        if here.closed:\n            here.left.set()",
        "        here.left.set()",
        "after a pause leaving does not wait until the hub knows",
    ),
)
