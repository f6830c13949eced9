"""The file that says who gets in: TOML, read anew when the hub is told to (SIGHUP)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

from atoma.errors import ConfigurationError
from atoma.hub import StaticTokenVerifier
from atoma.hub.rules import Access
from atoma.ports.service import Peer, Principal

_EXAMPLE = '[ada]\ntoken = "a long secret"\nscopes = { red = "write", blue = "read" }  # without: every scope'


class TokenFile:
    """A verifier and rules from a file: a table for each subject, with ``token`` and, if not every scope is theirs, ``scopes``.

    Args:
        path: The file.

    Raises:
        ConfigurationError: It cannot be read, or says something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.read()

    def read(self) -> None:
        """Read the file anew; when it cannot be used, what held before holds on.

        Raises:
            ConfigurationError: It cannot be used.
        """
        tokens: dict[str, str] = {}
        scopes: dict[str, Mapping[str, Access]] = {}
        for subject, table in self._tables().items():
            token, known = table.get("token"), table.keys() <= {"token", "scopes"}
            if not known or not isinstance(token, str) or not token:
                raise self._wrong(f"[{subject}] needs a token, and may have scopes, and nothing else")
            if token in tokens:
                raise self._wrong(f"[{subject}] has the token of [{tokens[token]}]")
            tokens[token] = subject
            if "scopes" in table:
                scopes[subject] = self._scopes_of(subject, table["scopes"])
        if not tokens:
            raise self._wrong("it names nobody")
        self._verifier, self._scopes = StaticTokenVerifier(tokens), scopes

    async def verify(self, token: str, peer: Peer) -> Principal:
        """The token's principal.

        Raises:
            AuthenticationError: No such token.
        """
        return await self._verifier.verify(token, peer)

    def scope_access(self, principal: Principal, scope: str) -> Access:
        """What the file says of the scope; of a subject without ``scopes`` it is ``write``."""
        found = self._scopes.get(principal.subject)
        return "write" if found is None else found.get(scope, "none")

    def _tables(self) -> Mapping[str, Mapping[str, object]]:
        try:
            found = tomllib.loads(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise self._wrong(str(error)) from None
        if not all(isinstance(table, dict) for table in found.values()):
            raise self._wrong("it has a table for each subject, and nothing else")
        return cast("Mapping[str, Mapping[str, object]]", found)

    def _scopes_of(self, subject: str, scopes: object) -> Mapping[str, Access]:
        words = get_args(Access)
        if not isinstance(scopes, dict) or not all(
            word in words for word in cast("dict[str, object]", scopes).values()
        ):
            raise self._wrong(f"[{subject}] scopes is a table of scopes, each {', '.join(words)}")
        return cast("Mapping[str, Access]", scopes)

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}: {what}; write\n{_EXAMPLE}")
