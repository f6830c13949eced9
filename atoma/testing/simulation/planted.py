"""stub"""
from __future__ import annotations
from contextlib import contextmanager
@contextmanager
def plant(name: str):
    yield
