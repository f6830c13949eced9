"""The inspector: one page that shows what a client is doing, fed by the client itself.

>>> eye = Inspection()
>>> async with open_client(schema, plugins=[..., eye]) as client:
...     add_inspector(handler, [Inspected("main", "Main", client, eye)])
"""

from __future__ import annotations

from atoma.inspector.operating import Operations
from atoma.inspector.pages import STATIC_PREFIX, add_inspector
from atoma.inspector.plugin import Inspection
from atoma.inspector.snapshot import Inspected, take_snapshot
from atoma.inspector.views import InspectorState

__all__ = ["STATIC_PREFIX", "Inspected", "Inspection", "InspectorState", "Operations", "add_inspector", "take_snapshot"]
