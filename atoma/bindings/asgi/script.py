"""``atoma.js`` for the pages of an application."""

from __future__ import annotations

from importlib.resources import files

from atoma.bindings.asgi.messages import Receive, Scope, Send, respond


class ScriptApp:
    """An ASGI application that serves ``atoma.js``, wherever it is mounted."""

    def __init__(self) -> None:
        self._text = files("atoma.bindings.asgi").joinpath("atoma.js").read_bytes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            await respond(send, 200, self._text, "text/javascript; charset=utf-8")
