"""What search, decoding and analysis need of a model: the interface of ``CtcModel``, and of a model of another toolkit."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from asrprune.model.encoder import Context


class LayeredModel(Protocol):
    """An ``nn.Module`` with a stack of layers, any of which can be left out, and one CTC head.

    Training, pruned weights and export need a ``CtcModel``.
    """

    factor: int  # feature frames for each encoder frame
    holds_pairs: bool  # whether attention stores a value for each pair of frames (T'^2 memory)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, from the lowest to the highest."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""

    def eval(self) -> Any:
        """Switch dropout off, as in ``nn.Module``."""

    def embed(self, features: Tensor, lens: Tensor) -> tuple[Tensor, Context]:
        """Return the stream before the first layer (B, T', D) and the context, for raw (B, T, F) features and (B,) lengths."""

    def step(self, x: Tensor, layer: int, context: Context, after: int) -> Tensor:
        """Run layer 1..L on the stream (B, T', D) after layer ``after`` (0: none), the last one that ran."""

    def head(self, x: Tensor) -> Tensor:
        """Return log-probabilities (B, T', V) float32 for the stream (B, T', D) after any layer; unit 0 is the blank."""
