"""An exported file in onnxruntime."""

import os
from pathlib import Path

import numpy as np

from asrprune.experiment.plan import Keep
from asrprune.runtime.errors import UserError

INPUTS, OUTPUTS, KEEP = ("x", "x_lens"), ("log_probs", "log_probs_lens"), "keep"  # those of sherpa-onnx, and the layers


class Session:
    """An ONNX file, loaded once; the layers are chosen for each call."""

    def __init__(self, path: Path) -> None:
        """Load a file; raise a ``UserError`` if onnxruntime is missing or the file is none of ours."""
        try:
            import onnxruntime
        except ImportError:
            raise UserError("onnxruntime is missing; run: pip install 'asrprune[runtime]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: all cores; it ignores this variable
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the cores to others
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each cause
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise UserError(f"{path}: onnxruntime cannot load it ({str(error).splitlines()[0]}); export it again") from None
        self.metadata = self._session.get_modelmeta().custom_metadata_map
        optional = [entry for entry in self._session.get_overridable_initializers() if entry.name == KEEP]
        self.num_layers = optional[0].shape[0] if optional else None

    def run(self, features: np.ndarray, lens: np.ndarray, keep: Keep | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return log-probabilities (B, T', V) and their lengths (B,).

        Args:
            features: (B, T, F) float32, log-mel filterbanks of samples in [-1, 1).
            lens: (B,) int64.
            keep: the layers that run; None: those that the file runs by default.
        """
        inputs = dict(zip(INPUTS, (features, lens), strict=True))
        if keep is not None:
            assert self.num_layers is not None, "a file of one depth"
            inputs[KEEP] = np.isin(np.arange(1, self.num_layers + 1), keep)
        log_probs, frames = self._session.run(None, inputs)
        return log_probs, frames
