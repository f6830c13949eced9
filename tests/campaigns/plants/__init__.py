"""Planted violations: for each promise, ways to break it that the tests named in its row have to notice."""
