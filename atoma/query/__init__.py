"""Asking: the builder, its binding to a store, keyset cursors, and evaluation in plain Python."""

from __future__ import annotations

from atoma.query.builder import Column, Condition, Query, bind, col, decode_cursor, encode_cursor

__all__ = ["Column", "Condition", "Query", "bind", "col", "decode_cursor", "encode_cursor"]
