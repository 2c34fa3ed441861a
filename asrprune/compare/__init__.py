"""The paper's experiment: a grid of methods, depths and seeds, and what comes of comparing its runs."""
