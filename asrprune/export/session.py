"""An exported file in onnxruntime."""

import mmap
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from asrprune.experiment.plan import Keep
from asrprune.runtime.errors import UserError
from asrprune.runtime.memory import give_back_freed_memory
from asrprune.runtime.threads import given_threads

INPUTS = {"features": ("x", "x_lens"), "waveform": ("waveform", "waveform_lens")}  # those of features are sherpa-onnx's
OUTPUTS, KEEP = ("log_probs", "log_probs_lens"), "keep"
THRESHOLDS, LAYERS = "thresholds", "layers"  # input and output of early exit
_LONGEST_RUN_S = 600.0  # of a batch of 30 s, or of a window
_NEVER = 2.0  # a threshold that no confidence reaches, also after rounding to float32
_PLACE = re.compile(r"^\S+:\d+ .*\) ")  # file, line and signature of a function


class Session:
    """An ONNX file, loaded once; the layers are chosen for each call."""

    def __init__(self, path: Path, low_memory: bool = False) -> None:
        """Load a file; raise a ``UserError`` if onnxruntime is missing or cannot load it.

        ``low_memory``: weights are not kept a second time in the order in which the processor reads them fastest.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UserError("onnxruntime is missing; run: pip install 'asrprune[runtime]'") from None
        if not _is_utf8(path):
            raise UserError(f"{path}: onnxruntime reads no file whose path is not UTF-8; rename it")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.intra_op_num_threads = given_threads() or 0  # onnxruntime ignores the environment; 0: all cores
        # By default threads spin while they wait for each other: on idle cores calls are then 1.2 times as fast. This stops
        # the spinning at the end of a call, because between calls the cores belong to others.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.disable_prepacking", "1" if low_memory else "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each cause
            if not _is_of_onnxruntime(error):
                raise
            raise UserError(
                f"{path}: onnxruntime cannot load it ({_reason(error)}); export it again, or install a newer onnxruntime"
            ) from None
        if low_memory:
            give_back_freed_memory()
        self.metadata = self._session.get_modelmeta().custom_metadata_map
        self._path, self._may_loop = path, _may_loop(path)
        known = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        if len(known) < 2:
            raise UserError(f"{path}: not a model that `asrprune export` wrote: it has no inputs for audio and its length")
        sizes = {entry.name: entry.shape[0] for entry in known if entry.shape}  # files of others may have inputs without a size
        self.num_layers, self.num_thresholds = sizes.get(KEEP), sizes.get(THRESHOLDS, 0)
        taken, given = known[0].shape or [], self._session.get_outputs()[0].shape or [None]
        self.num_units, self.num_mels = given[-1], [*taken[2:], 0][0] if taken else None  # 0: it takes samples
        self._inputs = [entry.name for entry in known[:2]]

    def run(self, x: np.ndarray, lens: np.ndarray, keep: Keep | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return log-probabilities (B, T', V) and their lengths (B,).

        Args:
            x: float32, the input of the file: log-mel filterbanks (B, T, F) of samples in [-1, 1), or such samples (B, S).
            lens: (B,) int64, frames or samples of each utterance.
            keep: the layers that run, without early exit; None: what the file runs by default.
        """
        inputs = dict(zip(self._inputs, (x, lens), strict=True))
        if keep is not None:
            assert self.num_layers is not None, "a file of one depth"
            inputs[KEEP] = np.isin(np.arange(1, self.num_layers + 1), keep)
            if self.num_thresholds:
                inputs[THRESHOLDS] = as_thresholds([_NEVER] * self.num_thresholds)
        log_probs, frames = self._run(OUTPUTS, inputs)
        return log_probs, frames

    def run_until_sure(
        self, x: np.ndarray, lens: np.ndarray, thresholds: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return log-probabilities (B, T', V), their lengths (B,), and the number of layers that ran for each utterance (B,).

        ``thresholds``: how sure each exit but the last one must be; above 1: never.
        """
        inputs = {
            **dict(zip(self._inputs, (x, lens), strict=True)),
            KEEP: np.ones(self.num_layers or 0, dtype=bool),
            THRESHOLDS: as_thresholds(thresholds),
        }
        log_probs, frames, layers = self._run([*OUTPUTS, LAYERS], inputs)
        return log_probs, frames, layers

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        import onnxruntime

        options = onnxruntime.RunOptions()
        watch = threading.Timer(_LONGEST_RUN_S, setattr, (options, "terminate", True))
        watch.daemon = True
        if self._may_loop:  # starting a thread takes 0.2 ms, up to 3 % of a call
            watch.start()
        try:
            return list(self._session.run(list(outputs), dict(inputs), options))
        except Exception as error:
            if not (_is_of_onnxruntime(error) or isinstance(error, ValueError)):  # ValueError: no such input or output
                raise
            why = f"no end in {_LONGEST_RUN_S:g} s" if options.terminate else _reason(error)
            raise UserError(f"{self._path}: onnxruntime cannot run it ({why}); export it again") from None
        finally:
            watch.cancel()


def _may_loop(path: Path) -> bool:
    """Return whether a file may have a loop, which may have no end. `asrprune export` writes none."""
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"Loop") >= 0


def as_thresholds(thresholds: Sequence[float]) -> np.ndarray:
    """Return thresholds as the input of a file, float32; those that are hardly above 1 must not become 1."""
    return np.array([_NEVER if each > 1.0 else each for each in thresholds], dtype=np.float32)


def _is_of_onnxruntime(error: Exception) -> bool:
    return type(error).__module__.startswith("onnxruntime")


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def _reason(error: Exception) -> str:
    """Return the first sentence of an error of onnxruntime, without the place in its source."""
    message = str(error).splitlines()[0].partition("failed:")[2] or str(error).splitlines()[0]
    return _PLACE.sub("", message).partition(". ")[0].rstrip(".")
