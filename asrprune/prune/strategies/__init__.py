"""The strategies that choose layers: pure functions, one file for each, and their table."""
