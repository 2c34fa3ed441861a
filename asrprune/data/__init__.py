"""Kaldi data directories, audio, features, text units and batches."""
