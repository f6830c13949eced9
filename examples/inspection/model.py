from dataclasses import dataclass, field
from typing import Literal

from atoma import Index, Plugin, Schema, StoreSpec, Sync, belongs_to, new_id
from atoma.schema import Rename
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.remote import Remote
from atoma_transports.websocket import WebSocketTransport

State = Literal["open", "fine", "fault"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    id: str = field(default_factory=new_id)
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    id: str = field(default_factory=new_id)
    site: str | None = None
    what: str
    state: State = "open"
    remark: str = ""


SITES = StoreSpec("sites", Site, conflict="server_wins")
CHECKS = StoreSpec("checks", Check, indexes=[Index("site", "state")], search=["what", "remark"], conflict="server_wins")
SCHEMA = Schema(SITES, CHECKS, version=3, steps={3: [Rename("checks.note", "remark")]})

site, state = CHECKS.col(lambda check: check.site), CHECKS.col(lambda check: check.state)
SITE = belongs_to(CHECKS, SITES, on=site)


def plugins(file: str, hub: str = "", token: str = "") -> list[Plugin]:
    local = LocalExecution(SQLiteEngine(file))
    if not hub:
        return [local]
    return [local, Remote(WebSocketTransport(hub, token=token)), Sync(stores=[SITES, CHECKS])]
