"""What the gateway and the station share: the readings, and of each sensor the last one."""

from __future__ import annotations

from dataclasses import dataclass, field

from atoma import Plugin, Schema, StoreSpec, Sync, new_id
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.remote import Remote
from atoma_transports.websocket import WebSocketTransport

POLICY = "sync-queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a sensor said once. The id tells when, and is the order."""

    id: str = field(default_factory=new_id)
    sensor: str
    celsius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """What a sensor said last. A page that shows 200 sensors follows 200 rows, not all that was ever measured."""

    id: str
    celsius: float
    readings: int


READINGS = StoreSpec("readings", Reading, conflict="server_wins")
SENSORS = StoreSpec("sensors", Sensor, conflict="server_wins")
SCHEMA = Schema(READINGS, SENSORS, version=1)


def device(file: str, hub: str, token: str) -> list[Plugin]:
    """The plugins of a device with a file of its own."""
    return [
        LocalExecution(SQLiteEngine(file)),
        Remote(WebSocketTransport(hub, token=token)),
        Sync(stores=[READINGS, SENSORS]),
    ]
