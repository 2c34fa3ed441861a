"""Layer: what the encoder asks of a layer type."""

from typing import ClassVar

from torch import Tensor, nn


class Layer(nn.Module):
    """One layer of the encoder. A new type is a section in the config and a file of that name here, with a subclass and a
    function ``make_layer(config)``. If its config has ``position_scale``, the stream begins with sinusoids.

    Layers are left out at run time, so each must make sense of the stream after any other: it adds its branches to the stream,
    keeps its shape, and holds nothing from one call to the next. What lies in the padding changes no real frame.
    """

    holds_pairs: ClassVar[bool]  # whether training holds a value for each pair of frames, not only some for each frame

    def forward(self, x: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """The stream after this layer, (B, T', D).

        Args:
            x: (B, T', D), the stream before it.
            mask: (B, 1, 1, T') bool, True where a frame is real; None if all are.
            scale: c, the factor of all residual branches.
        """
        raise NotImplementedError

    def initialise(self, num_layers: int) -> None:
        """Change what should not start with Xavier weights and zero biases, in a stack of ``num_layers``."""
