"""Measures of the layers: activations, SVCCA, influence."""
