"""Sums over the updates since the last log line."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from asrprune.train.ranks import add_up


@dataclass
class Window:
    """Sums over the updates since the last log line. ``losses`` and ``frames`` are of this process, the others of all."""

    losses: Tensor  # (E,) loss of each exit, summed over the utterances that reach it
    reached: Tensor  # (E,) number of utterances that reach each exit
    utterances: int = 0
    frames: int = 0
    layers_run: int = 0  # summed over updates
    ended_at: Counter[int] = field(default_factory=Counter)  # layer -> updates that ended at it
    grad_norm: float = 0.0  # of the last update, before clipping
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def empty(cls, exits: int, device: torch.device) -> "Window":
        """Make a window without updates."""
        return cls(torch.zeros(exits, device=device), torch.zeros(exits, device=device))

    @property
    def seconds(self) -> float:
        """The time since the window was opened."""
        return time.monotonic() - self.started

    def added_up(self, fabric: Fabric) -> tuple[Tensor, float]:
        """Return the losses of each exit and the frames of all processes, which must all call this."""
        frames = torch.tensor(float(self.frames), device=self.losses.device)
        return add_up(self.losses, fabric), float(add_up(frames, fabric))

    def state(self, fabric: Fabric) -> dict[str, Any]:
        """Return what a saved training state needs; all processes must call this."""
        losses, frames = self.added_up(fabric)
        return {
            "losses": losses.cpu(), "frames": frames, "reached": self.reached.cpu(), "utterances": self.utterances,
            "layers_run": self.layers_run, "ended_at": dict(self.ended_at), "grad_norm": self.grad_norm,
            "seconds": self.seconds,
        }  # fmt: skip

    @classmethod
    def of(cls, state: dict[str, Any], exits: int, fabric: Fabric) -> "Window":
        """Make the window of a saved state; the first process gets the sums of all.

        Raises:
            ValueError: the state is one of another number of exits.
        """
        for key in ("losses", "reached"):
            if state[key].shape != (exits,):
                raise ValueError(f"{key} has the shape {[*state[key].shape]}, not {[exits]}")
        share, device = int(fabric.is_global_zero), fabric.device
        return cls(
            state["losses"].to(device) * share, state["reached"].to(device), state["utterances"], int(state["frames"]) * share,
            state["layers_run"], Counter(state["ended_at"]), state["grad_norm"], time.monotonic() - state["seconds"],
        )  # fmt: skip
