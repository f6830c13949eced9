"""Rows as documents, for clients that replicate collections of JSON objects: ``/v1/docs/{store}/pull|push|stream``.

Everything here is made of the calls that every client of a hub has, ``pull``, ``snapshot``, ``notify``, ``query`` and ``write``,
in the name of whoever asks: what a hub allows, checks, sets and limits is decided there, and nowhere here.
"""
