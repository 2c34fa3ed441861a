"""The interface of a layer type."""

from typing import ClassVar

from torch import Tensor, nn


class Layer(nn.Module):
    """One layer of the encoder.

    To add a type, add a section to the config, and a module with the name of the type that has a subclass and a function
    ``make_layer(config)``. If the section has ``position_scale``, sinusoids are added to the input of the first layer.

    Any layer may follow any other, because layers are removed at run time. So a layer adds its branches to the stream, keeps
    the shape, and has no state between calls. Values in the padding must not change real frames.
    """

    holds_pairs: ClassVar[bool]  # whether training stores a value for each pair of frames (T'^2 memory)

    def forward(self, x: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """Return the stream after this layer, (B, T', D).

        Args:
            x: (B, T', D), the stream before this layer.
            mask: (B, 1, 1, T') bool, True on real frames, False on padding; None without padding.
            scale: c, the factor of all residual branches.
        """
        raise NotImplementedError

    def initialise(self, num_layers: int) -> None:
        """Replace Xavier weights and zero biases where this layer of ``num_layers`` needs other initial values."""
