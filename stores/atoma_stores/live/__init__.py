"""Live queries: results that follow the commits of a database, at the cost of what changed where that is possible."""
