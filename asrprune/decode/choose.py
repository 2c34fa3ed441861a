"""Making the decoder of the config section `decode.decoder`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from asrprune.config.load import check
from asrprune.config.schema import BeamConfig, DecodeConfig, Decoding, GreedyConfig
from asrprune.data.tokenizer import UNKNOWN_LABEL, Tokenizer
from asrprune.decode.arpa import ArpaModel
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.decode.language_model import LanguageModel
from asrprune.decode.prefix_beam import PrefixBeam
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.store import Experiment
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.runtime.records import Record

logger = logging.getLogger(__name__)
LM_WEIGHT, WORD_BONUS = 0.5, 0.0  # defaults, if neither the config nor `asrprune tune-lm` sets them


class Weights(Record):
    """Weights that were tried on a dev set, and the WER in percent."""

    lm_weight: float
    word_bonus: float
    wer: float


class Tuned(Record):
    """decoder.json: the best weights of a language model, and all weights that were tried."""

    made_by: ClassVar[str] = "`asrprune tune-lm`"
    format: Literal[1]
    lm_weight: float
    word_bonus: float
    wer: float
    model_sha256: str
    lm_sha256: str
    set: str
    width: int
    tried: tuple[Weights, ...]


def decoder_of(experiment: Experiment, given: Mapping[str, Any] | None = None) -> Decoder:
    """Make the decoder of an experiment.

    Args:
        experiment: its config selects the decoder; its decoder.json has the weights that the config leaves open.
        given: see ``decoder_options``.

    Raises:
        UserError: see ``decoder_options`` and ``make_decoder``.
    """
    options = decoder_options(experiment, given or {})
    if isinstance(options, BeamConfig) and options.lm is not None and None in (options.lm_weight, options.word_bonus):
        options = _with_weights(options, _tuned(experiment, Path(options.lm)))
    return make_decoder(options, experiment.tokenizer)


def decoder_options(experiment: Experiment, given: Mapping[str, Any]) -> Decoding:
    """Return ``decode.decoder`` of the config, with the numbers in ``given`` replaced.

    If ``given`` has another ``type``, the numbers of the config are not used. The file of a language model is searched in the
    experiment first.

    Raises:
        UserError: the numbers do not fit together.
    """
    configured = experiment.config.decode.decoder
    same = given.get("type", configured.type) == configured.type
    values = {**(configured.model_dump() if same else {}), **given}
    options = check(DecodeConfig, {"decoder": values}, "decode").decoder
    if not isinstance(options, BeamConfig) or options.lm is None:
        return options
    own = ExperimentPaths(experiment.path).lang / options.lm
    return options.model_copy(update={"lm": str(own)}) if own.is_file() else options


def make_decoder(options: Decoding, tokenizer: Tokenizer) -> Decoder:
    """Make a decoder.

    Raises:
        UserError: there is no such language model, or an expected phrase cannot be written in the text units.
    """
    if isinstance(options, GreedyConfig):
        return GREEDY
    if options.lm is None:
        return make_beam(options, tokenizer, None, "")
    return make_beam(_with_weights(options, None), tokenizer, ArpaModel(Path(options.lm)), sha256_of(Path(options.lm)))


def make_beam(options: BeamConfig, tokenizer: Tokenizer, lm: LanguageModel | None, lm_sha256: str) -> PrefixBeam:
    """Make a beam search with a language model that is already loaded."""
    for phrase in options.context:
        if not phrase.split() or UNKNOWN_LABEL in tokenizer.encode(phrase):
            raise UserError(f"decode.decoder.context: {phrase!r} cannot be written in the text units; remove it")
    return PrefixBeam(tokenizer.pieces, options, lm, lm_sha256)


def _tuned(experiment: Experiment, lm: Path) -> Tuned | None:
    path = ExperimentPaths(experiment.path).decoder
    if not path.exists():
        return None
    tuned = Tuned.read(path)
    if tuned.model_sha256 != experiment.record.model_sha256 or (lm.is_file() and tuned.lm_sha256 != sha256_of(lm)):
        logger.warning("%s: belongs to another model or language model and is ignored; run `asrprune tune-lm` again", path)
        return None
    return tuned


def _with_weights(options: BeamConfig, tuned: Tuned | None) -> BeamConfig:
    """Return the options with values for the weights that they leave open."""
    weights = {
        "lm_weight": tuned.lm_weight if tuned else LM_WEIGHT,
        "word_bonus": tuned.word_bonus if tuned else WORD_BONUS,
    }
    return options.model_copy(update={name: value for name, value in weights.items() if getattr(options, name) is None})
