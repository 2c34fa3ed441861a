"""The CTC model. Training, analysis and pruned decoding use the same encoder loop."""
