"""The interface of a layer type."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from asrprune.model.dropout import dropout


class Layer(nn.Module):
    """One layer of the encoder.

    To add a type, add a section to the config, and a module with the name of the type that has a subclass and a function
    ``make_layer(config)``. If the section has ``position_scale``, sinusoids are added to the input of the first layer.

    Any layer may follow any other, because layers are removed at run time. So a layer adds its branches to the stream, keeps
    the shape, and has no state between calls. Values in the padding must not change real frames.
    """

    holds_pairs: ClassVar[bool]  # whether training stores a value for each pair of frames (T'^2 memory)
    dropout: float

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

    def drop(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Return ``scale`` * dropout(x)."""
        return dropout(x, self.dropout, self.training, scale)


@torch.no_grad()
def shrink_branches(ends: Sequence[nn.Linear], num_layers: int) -> None:
    """Scale branches down, so that the sum of all branches of all layers has the size of the stream (as in GPT-2).

    A deep stack of layers that end in a norm must start near the identity. The last norm of a layer divides the stream by
    the size of the sum. If the branches are as large as the stream, the input of the first layer is lost after a few layers,
    and the upper layers disturb what the lower ones have learnt.

    Args:
        ends: the last map of each branch of a layer.
        num_layers: the number of layers.
    """
    for end in ends:
        end.weight.mul_((len(ends) * num_layers) ** -0.5)
