"""Certificates for localhost, by an authority that exists for one run of the tests only."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import trustme


def make_certificate(
    folder: Path, name: str = "localhost", *, not_before: datetime | None = None, not_after: datetime | None = None
) -> Path:
    """A file with a key, its certificate for localhost, and the certificate of the authority that signed it.

    Args:
        folder: Where to put it.
        name: Name of the file.
        not_before: From when on it is good; the library's default is long ago.
        not_after: Until when it is good; the library's default is far away.
    """
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", not_before=not_before, not_after=not_after)
    path = folder / f"{name}.pem"
    path.write_bytes(leaf.private_key_and_cert_chain_pem.bytes() + authority.cert_pem.bytes())
    return path


def server_context(certificate: Path) -> ssl.SSLContext:
    """The context of a server that shows ``certificate``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def client_context(certificate: Path) -> ssl.SSLContext:
    """The context of a client that trusts the authority of ``certificate``, and nobody else."""
    return ssl.create_default_context(cafile=str(certificate))
