"""The CTC model: one encoder loop for training, analysis and pruned decoding."""
