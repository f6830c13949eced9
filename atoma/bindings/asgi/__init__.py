"""Atoma in a web application: live queries as server-sent events and WebSockets, and the hub beside the application's routes.

Each is an ASGI application to be mounted in FastAPI, Starlette, Django, or any other. ``atoma.js``, which :class:`ScriptApp` serves,
follows a live query in a page.
"""

from __future__ import annotations

from atoma.bindings.asgi.hub import HubApp
from atoma.bindings.asgi.live import LiveApp
from atoma.bindings.asgi.messages import Message, Receive, Scope, Send
from atoma.bindings.asgi.script import ScriptApp

__all__ = ["HubApp", "LiveApp", "Message", "Receive", "Scope", "ScriptApp", "Send"]
