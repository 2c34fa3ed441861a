"""A grid of methods, depths and seeds: its runs, their records, and the comparison of pruned with individual models."""
