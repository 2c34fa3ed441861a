"""What the layers do: activations, SVCCA, influence."""
