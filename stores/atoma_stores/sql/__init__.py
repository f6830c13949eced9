"""Queries as SQL: the text that a database is sent, made of a checked plan and the schema only."""
