"""What the layers do: activations and SVCCA."""
