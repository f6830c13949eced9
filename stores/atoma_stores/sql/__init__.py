"""Queries as SQL: the text that is sent to a database, made only from a checked plan and the schema."""
