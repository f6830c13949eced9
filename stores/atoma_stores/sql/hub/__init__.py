"""The hub's database as scripts: its tables, what is asked for a decision, what is written of it, and what it tells."""
