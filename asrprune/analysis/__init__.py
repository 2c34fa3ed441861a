"""Measurements of the layers: activations, SVCCA, influence."""
