"""Masks of the real frames of a batch, whose utterances are padded to the longest one."""

import torch
from torch import Tensor


def real_frames(lens: Tensor, frames: int) -> Tensor:
    """Return (B, T') bool, True on the first ``lens`` (B,) of ``frames`` frames, False on the padding."""
    return torch.arange(frames, device=lens.device) < lens.unsqueeze(1)


def attention_mask(lens: Tensor, frames: int) -> Tensor:
    """Return (B, 1, 1, T') bool, True on the frames that attention may look at.

    For an utterance without real frames all values are True: its output is never used, and a row of -inf would give NaN.
    """
    return (real_frames(lens, frames) | (lens == 0).unsqueeze(1))[:, None, None, :]


def padding_mask(lens: Tensor, frames: int) -> Tensor | None:
    """Return the mask of ``attention_mask``; None without padding, because attention is then faster."""
    return None if bool((lens >= frames).all()) else attention_mask(lens, frames)
