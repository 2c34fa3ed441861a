"""Training: the loop, the schedules, the checkpoints."""
