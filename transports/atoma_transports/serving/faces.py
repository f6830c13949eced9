"""Which languages this installation speaks; each is looked for when a port is opened, and may be missing."""

from __future__ import annotations

import logging
from importlib import import_module

from atoma.errors import ConfigurationError
from atoma_transports.serving.face import Face

logger = logging.getLogger("atoma.transports")

PLACES = {
    "grpc": ("atoma_transports.grpc", "GrpcFace"),
    "websocket": ("atoma_transports.websocket", "WebSocketFace"),
    "http": ("atoma_transports.http", "HttpFace"),
}
"""Package and class of each face, in the order in which they are asked; the class is in the module ``face``."""
ALPN = {"grpc": ("h2",), "websocket": ("http/1.1",), "http": ("http/1.1",)}
"""What a face is called when TLS is agreed upon."""


def installed_faces(pages: Face | None = None) -> tuple[Face, ...]:
    """Every face whose package and library are there; ``pages`` takes the place of the one with its name.

    Raises:
        ConfigurationError: There is none at all, or ``pages`` is no face.
    """
    if pages is not None and not _is_face(pages):
        raise ConfigurationError(f"pages={pages!r} is no face: give an atoma_transports.http.HttpFace")
    faces: list[Face] = [] if pages is None or pages.name in PLACES else [pages]
    for name in PLACES:
        face = pages if pages is not None and pages.name == name else find_face(name)
        if face is not None:
            faces.append(face)
    if not faces:
        raise ConfigurationError("no transport is installed that could answer on a port: install trio-websocket or h11")
    return tuple(faces)


def _is_face(value: object) -> bool:
    return isinstance(value, Face)


def find_face(name: str) -> Face | None:
    """The face called ``name``; None when its package, or the library it drives, is not installed."""
    package, kind = PLACES[name]
    try:
        module = import_module(f"{package}.face")
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0].startswith("atoma") and missing not in (package, f"{package}.face"):
            raise  # a part of ours that has to be there
        logger.info("%s is not spoken on this port: %s is not installed", name, missing)
        return None
    face: object = getattr(module, kind)()
    assert isinstance(face, Face)
    return face


def alpn_of(faces: tuple[Face, ...]) -> list[str]:
    """What to agree on in TLS, the server's choice first.

    HTTP/1.1 goes before HTTP/2: a browser or curl offers both, and only the first brings it to pages and events; who
    speaks gRPC offers HTTP/2 alone.
    """
    names = {name for face in faces for name in ALPN.get(face.name, ())}
    return [name for name in ("http/1.1", "h2") if name in names]
