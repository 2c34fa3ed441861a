"""The strategies that choose layers: a file for each, pure functions, and the table of them all."""
