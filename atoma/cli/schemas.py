"""``--schema MODULE:NAME``: the schema of an application, for the commands that need it."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback

from atoma.errors import ConfigurationError
from atoma.schema import Schema


def add_option(command: argparse.ArgumentParser, *, otherwise: str = "") -> None:
    """Add the option to a command; it is required unless ``otherwise`` says what is taken without it."""
    told = f"the Schema of your application; {otherwise}" if otherwise else "the Schema of your application"
    command.add_argument("--schema", required=not otherwise, metavar="MODULE:NAME", help=told)


def load(name: str) -> Schema:
    """Return the schema that a module has under a name, as in ``app.models:SCHEMA``; modules in the current folder are found too.

    Raises:
        ConfigurationError: There is no such schema, or its module fails.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigurationError(f"--schema takes a module and a name in it, as in app.models:SCHEMA, not {name!r}")
    sys.path.insert(0, "")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"--schema {name}: {error}") from error
    except Exception as error:  # whatever a module does while it is imported
        raise ConfigurationError(f"--schema {name}: {_whence(error)}{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove("")
    if not isinstance(found, Schema):
        raise ConfigurationError(f"--schema {name} is a {type(found).__name__}, not a Schema")
    return found


def _whence(error: Exception) -> str:
    """Return the line of a module that raised the error, if one did."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        ""
        if last.filename == importlib.__file__ or last.filename.startswith("<")
        else f"{last.filename}:{last.lineno}: "
    )
