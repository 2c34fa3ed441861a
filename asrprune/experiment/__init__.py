"""The experiment directory, which contains everything about one model."""
