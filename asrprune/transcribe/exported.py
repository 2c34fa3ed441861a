"""An exported file as the model of a recogniser; it runs in onnxruntime, without torch."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asrprune.config.schema import BeamConfig
from asrprune.data.units import Units
from asrprune.decode.choose import make_decoder, replaced, with_weights
from asrprune.decode.decoder import Decoder, warn_of_thresholds
from asrprune.decode.windows import Timing
from asrprune.experiment.plan import Keep, Plan, check_layers
from asrprune.export.record import Exported
from asrprune.export.session import LAYERS, Session
from asrprune.features.fbank import UNIT_SCALE, Read, fbank_of_part, frame_sizes, num_frames
from asrprune.features.fbank_numpy import compute_fbank_numpy
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of

logger = logging.getLogger(__name__)
_ROUNDED = 1e-3  # a log-probability may be larger than 0 by this, after rounding


class ExportedModel:
    """The model of an ONNX file that `asrprune export` wrote; see ``Model``. Everything is read from the file itself.

    Only its path and the mode are pickled.
    """

    def __init__(self, path: Path, low_memory: bool = False) -> None:
        """Load a file; raise a ``UserError`` if it is missing, or if `asrprune export` did not write it.

        ``low_memory``: see ``Session``.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such file; `asrprune export` makes it")
        self.path, self._low_memory = path.absolute(), low_memory
        self._session = Session(path, low_memory)
        self.record = Exported.of_metadata(path, self._session.metadata)
        self._check_sizes()
        self.batches = self.record.precision != "int8"  # in int8 all numbers of a batch share one scale
        self.num_layers, self.frontend = self.record.num_layers, self.record.frontend
        self.default: Keep = self.record.at(self.record.depth).keep
        self.plan: Plan = self.record.plan()
        self.timing = Timing(self.frontend.shift_ms, self.record.factor, self.record.windows)
        self.units, self.word_tail_s = Units(self.record.units), self.record.word_tail_s
        self._warned = set[str]()  # decoders that have been compared with that of the thresholds

    def _check_sizes(self) -> None:
        """Raise a ``UserError`` if the metadata do not describe the graph."""
        record, graph = self.record, self._session
        sizes = (
            ("mel filters", record.frontend.num_mels if record.input == "features" else 0, graph.num_mels, True),
            ("text units", len(record.units), graph.num_units, True),
            ("layers", record.num_layers, graph.num_layers, record.form == "depth"),
            ("thresholds", len(record.thresholds), graph.num_thresholds, False),
        )
        for what, said, found, may_be_open in sizes:
            if said != found and (isinstance(found, int) or not may_be_open):
                raise UserError(f"{self.path}: its metadata say {said} {what}, but its graph has {found}; export it again")

    def __reduce__(self) -> tuple[type["ExportedModel"], tuple[Path, bool]]:
        return ExportedModel, (self.path, self._low_memory)

    def check_layers(self, layers: Sequence[int]) -> None:
        check_layers(layers, self.num_layers, "layers")
        if self.record.form == "depth" and tuple(layers) != self.default:
            only = ",".join(map(str, self.default))
            raise UserError(f"{self.path}: has the layers {only} only; export it with --form any-depth to choose others")

    def decoder(self, given: Mapping[str, Any]) -> Decoder:
        """See ``Model``. A language model is first looked for beside the file."""
        options = replaced(self.record.decoder, given, self.path.parent)
        if isinstance(options, BeamConfig) and options.lm is not None:
            lm, tuned = Path(options.lm), self.record.tuned
            if "lm" not in given and not lm.is_file():
                raise UserError(
                    f"{self.path}: decodes with the language model {lm}, which is not beside it; copy it there from the lang"
                    " directory of the experiment, give another one, or choose the decoder greedy"
                )
            if "lm" not in given and self.record.lm_sha256 not in (None, sha256_of(lm)):
                raise UserError(
                    f"{lm}: is another language model than that of {self.path}; copy that one from the lang directory of the"
                    " experiment, or give this one with --lm"
                )
            if tuned and not tuned.fits(lm):
                logger.warning("%s: the weights in %s were tuned for another language model and are ignored", lm, self.path)
                tuned = None
            options = with_weights(options, tuned)
        return make_decoder(options, self.units)

    def features(self, read: Read, num_samples: int, start: int, stop: int) -> np.ndarray:
        if self.record.input == "features":
            return fbank_of_part(read, num_samples, start, stop, self.frontend, compute_fbank_numpy) - np.float32(UNIT_SCALE)
        shift, _ = frame_sizes(self.frontend)
        end = num_samples if stop == num_frames(num_samples, self.frontend) else stop * shift
        return read(start * shift, end - start * shift).astype(np.float32)

    def emissions(self, batch: Sequence[np.ndarray], keep: Keep) -> list[np.ndarray]:
        lens = np.array([len(each) for each in batch])
        x = np.zeros((len(batch), lens.max(), *batch[0].shape[1:]), dtype=np.float32)
        for row, each in zip(x, batch, strict=True):
            row[: len(each)] = each
        log_probs, frames = self._session.run(x, lens, None if self.record.form == "depth" else keep)
        self._check_outputs(log_probs, frames, len(batch))
        return [row[:count] for row, count in zip(log_probs, frames.tolist(), strict=True)]

    def _check_outputs(self, log_probs: np.ndarray, frames: np.ndarray, count: int) -> None:
        """Raise a ``UserError`` unless these are the outputs for ``count`` utterances; those of a stranger may not be."""
        plain = isinstance(log_probs, np.ndarray) and log_probs.dtype == np.float32 and log_probs.ndim == 3
        fit = plain and log_probs.shape[::2] == (count, len(self.units)) and _are_counts(frames, count, log_probs.shape[1])
        if not fit or not log_probs.max(initial=-np.inf) <= _ROUNDED:
            raise UserError(
                f"{self.path}: its outputs are not log-probabilities of {len(self.units)} text units, and their lengths; export"
                " it again"
            )

    def thresholds(self, given: float | None, decoder: str) -> Sequence[float]:
        if self.record.form != "early-exit":
            raise UserError(f"{self.path}: has no early exit; export it with --form early-exit, or choose a depth")
        if given is not None:
            return [given] * (len(self.record.exits) - 1)
        if self.record.chosen_with is not None and decoder not in self._warned:
            warn_of_thresholds(self.path, self.record.chosen_with, decoder)
            self._warned.add(decoder)
        return self.record.thresholds

    def emissions_until_sure(self, features: np.ndarray, thresholds: Sequence[float]) -> tuple[np.ndarray, int]:
        log_probs, frames, layers = self._session.run_until_sure(features[None], np.array([len(features)]), thresholds)
        self._check_outputs(log_probs, frames, 1)
        if not _are_counts(layers, 1, self.num_layers):
            raise UserError(f"{self.path}: its output `{LAYERS}` is not the number of layers that ran; export it again")
        return log_probs[0, : int(frames[0])], int(layers[0])

    def params_m(self, keep: Keep) -> float:
        return self.record.at(len(keep)).params_m

    def memory_mb(self, keep: Keep) -> float:
        """See ``Model``; estimated as the size of the file times the share of its parameters that run."""
        return self.path.stat().st_size / 1e6 * self.params_m(keep) / self.record.depths[0].params_m


def _are_counts(values: np.ndarray, count: int, most: int) -> bool:
    """Return whether these are ``count`` whole numbers from 0 to ``most``."""
    whole = isinstance(values, np.ndarray) and values.dtype == np.int64 and values.shape == (count,)
    return bool(whole and values.min(initial=0) >= 0 and values.max(initial=0) <= most)
