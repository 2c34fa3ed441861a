"""A grid of methods, depths and seeds: its runs, their records, and pruned models against models trained for each depth."""
