"""Kaldi data directories, the features of a directory, text units and batches."""
