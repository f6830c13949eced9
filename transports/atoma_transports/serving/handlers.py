"""Protocol handlers: what answers in one language on a port, and which of them this installation has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol, runtime_checkable

import trio

from atoma.contracts.extras import install_line
from atoma.errors import ConfigurationError
from atoma.ports import Peer, ServiceHost
from atoma_transports.calls.fairness import Fairness, Share
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.serving.addresses import Origins
from atoma_transports.serving.places import ConnectionSlot
from atoma_transports.serving.sites import Sites


@dataclass(frozen=True, slots=True)
class Hosting:
    """The parts that one connection is served with.

    Attributes:
        host: Authenticates, and hands out services.
        peer: Who is at the other end of the connection; ``transport`` names the handler.
        known_host: Whether a host name in a request is one of this server's.
        limits: Limits of the connection.
        drain: Once set, calls in flight are finished, new ones refused with ``UNAVAILABLE``, then the handler returns.
        origins: Finds out who made a request, which may be somebody else than ``peer``.
        place: The connection's place on the port.
        fairness: What principals have once, over all connections of the port.
        handler_for: The handler that speaks what begins with some first bytes, for connections that change their language.
        sites: Whose pages may call.
    """

    host: ServiceHost
    peer: Peer
    known_host: Callable[[str], bool]
    limits: ChannelLimits
    drain: trio.Event
    origins: Origins = field(default_factory=Origins)
    place: ConnectionSlot = field(default_factory=ConnectionSlot.alone)
    fairness: Fairness = field(default_factory=Fairness)
    handler_for: Callable[[bytes], ProtocolHandler | None] = lambda head: None
    sites: Sites = field(default_factory=Sites)

    @contextmanager
    def share(self) -> Generator[Share]:
        """What the connection may take, as long as the block runs."""
        with self.fairness.connection(self.limits, self.peer) as share:
            share.ends_by(self.place.dismiss)
            yield share


@runtime_checkable
class ProtocolHandler(Protocol):
    """One language spoken on a port."""

    @property
    def name(self) -> str:
        """Name of the transport, as its peers see it."""
        ...

    def speaks(self, head: bytes) -> bool:
        """Whether a connection that begins, or goes on, with ``head`` is for this handler.

        ``head`` holds the first bytes: all HTTP/1.1 header fields, or the preface of HTTP/2.
        """
        ...

    async def serve(self, stream: trio.abc.Stream, hosting: Hosting) -> None:
        """Answer one connection until it ends; the caller closes ``stream``, whose first bytes are ``head`` again.

        Raises nothing but cancellation and what a lost stream raises.
        """
        ...


logger = logging.getLogger("atoma.transports")

LANGUAGES = {
    "grpc": ("GrpcHandler", "h2"),
    "websocket": ("WebSocketHandler", "http/1.1"),
    "http": ("HttpHandler", "http/1.1"),
}
"""The protocol handlers that come with Atoma, in the order in which they are asked: the class in the module ``handler`` of
the package with the language's name, and what the language is called when TLS is agreed upon."""


def installed_handlers(pages: ProtocolHandler | None = None) -> tuple[ProtocolHandler, ...]:
    """Every handler whose package and library are there; ``pages`` takes the place of the one with its name.

    Raises:
        ConfigurationError: There is none at all, or ``pages`` is not a protocol handler.
    """
    if pages is not None and not _is_handler(pages):
        raise ConfigurationError(
            f"pages={pages!r} is not a protocol handler: give an atoma_transports.http.HttpHandler"
        )
    handlers: list[ProtocolHandler] = [] if pages is None or pages.name in LANGUAGES else [pages]
    for name in LANGUAGES:
        handler = pages if pages is not None and pages.name == name else find_handler(name)
        if handler is not None:
            handlers.append(handler)
    if not handlers:
        raise ConfigurationError(f"no transport is installed that can serve a port: {install_line('hub')}")
    return tuple(handlers)


def _is_handler(value: object) -> bool:
    return isinstance(value, ProtocolHandler)


def find_handler(name: str) -> ProtocolHandler | None:
    """The handler called ``name``; None when its package, or the library it drives, is not installed."""
    package, (kind, _) = f"atoma_transports.{name}", LANGUAGES[name]
    try:
        module = import_module(f"{package}.handler")
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0].startswith("atoma") and missing not in (package, f"{package}.handler"):
            raise  # a part of ours that has to be there
        logger.info("%s is not spoken on this port: %s is not installed", name, missing)
        return None
    handler: object = getattr(module, kind)()
    assert isinstance(handler, ProtocolHandler)
    return handler


def alpn_of(handlers: tuple[ProtocolHandler, ...]) -> list[str]:
    """What to agree on in TLS, the server's choice first.

    HTTP/1.1 goes before HTTP/2: a browser or curl offers both, and only the first brings it to pages and events;
    a gRPC client offers HTTP/2 alone.
    """
    names = {LANGUAGES[handler.name][1] for handler in handlers if handler.name in LANGUAGES}
    return [name for name in ("http/1.1", "h2") if name in names]
