"""Decoders; decoding a set at many depths, and real-time factors."""
